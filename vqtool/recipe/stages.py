"""The checks of `[[stage]]`: its task, losses, knobs, schedules and training options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.forms import STAGE_NAME
from vqtool.recipe.options import Options, options_of, toml_value
from vqtool.recipe.places import Key
from vqtool.recipe.spec import LossSpec, PartSpec, ScheduleSpec, StageSpec, TrainOptions
from vqtool.suggest import did_you_mean, listed

if TYPE_CHECKING:
    from vqtool.recipe.checking import Checker

KEYS = ("name", "task", "options", "losses", "set", "schedule")
RESERVED = ("best", "last", "resume")  # files of a run that are called so


class StageChecker:
    """Checks the stages of one recipe, in order; `uses` gathers the parts that their tasks use."""

    def __init__(self, recipe: Checker, train: Options, defaults: dict[str, Any]) -> None:
        self.recipe = recipe
        self.train = train
        self.defaults = defaults  # what [train] gives
        self.uses: set[str] = set()
        self.unsure = False  # whether some stage's task is not known
        self._names: set[str] = set()

    def stage(self, index: int, table: Any) -> StageSpec | None:
        """One stage, or None where it has errors."""
        key: Key = ("stage", index)
        if not isinstance(table, Mapping):
            self.recipe.error(key, "a stage should be a table", "[[stage]]")
            return None
        before = len(self.recipe.errors)
        name = self._name(key, table)
        self._unknown_keys(key, table, name)
        task, cls = self._task(key, table)
        given = self._given(key, table, "losses")
        losses = [self._loss((*key, "losses", loss), loss, value, cls) for loss, value in given.items()]
        if not table.get("losses"):
            told = "losses = { NAME = 1.0 }; see vqtool plugins loss"
            self.recipe.error(key, f"stage `{name}` has no losses", told)
        knobs = Knobs(self.recipe, cls, given)
        set_ = {t: v for t, v in self._given(key, table, "set").items() if knobs.set((*key, "set", t), t, v)}
        schedules = [knobs.schedule((*key, "schedule", t), t, v)
                     for t, v in self._given(key, table, "schedule").items()]  # fmt: skip
        train = self._train(key, table, name)
        if len(self.recipe.errors) > before or task is None or train is None:
            return None
        done = tuple(loss for loss in losses if loss is not None)
        return StageSpec(name, task, done, set_, tuple(s for s in schedules if s is not None), train)

    def _name(self, key: Key, table: Mapping[str, Any]) -> str:
        """The stage's name; by default its task's. It names files, and `-s stage.NAME.KEY`."""
        name = table.get("name", table.get("task", f"stage{key[1]}"))
        at = (*key, "name") if "name" in table else key
        if not isinstance(name, str) or not STAGE_NAME.fullmatch(name):
            self.recipe.error(
                at, "the name of a stage should be of letters, digits, - and _", f"got {toml_value(name)}"
            )
        elif name in RESERVED:
            self.recipe.error(at, f"a stage cannot be called `{name}`: a file of every run is")
        elif name in self._names:
            self.recipe.error(at, f"two stages are called `{name}`", 'name = "..." tells them apart')
        self._names.add(str(name))
        return str(name)

    def _unknown_keys(self, key: Key, table: Mapping[str, Any], name: str) -> None:
        known = [*KEYS, *self.train.names]
        for one in table:
            if one not in known:
                near = did_you_mean(one, known, otherwise=f"a stage has {listed(KEYS)}, and the keys of [train]")
                self.recipe.error((*key, one), f"stage `{name}` has no key `{one}`", near)

    def _given(self, key: Key, table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        """A table inside the stage; something else there is an error."""
        given = table.get(name, {})
        if isinstance(given, Mapping):
            return given
        self.recipe.error((*key, name), f"`{name}` of a stage should be a table", f"{name} = {{ ... }}")
        return {}

    def _task(self, key: Key, table: Mapping[str, Any]) -> tuple[PartSpec | None, type[Any] | None]:
        if "task" not in table:
            self.unsure = True
            self.recipe.error(key, "the stage needs a `task`", f"one of {listed(catalog().names('task'))}")
            return None, None
        cls = self.recipe.component("task", table["task"], (*key, "task"))
        if cls is None:
            self.unsure = True
            return None, None
        self.uses |= cls.uses
        options = self._given(key, table, "options")
        return self.recipe.built("task", table["task"], cls, (*key, "options"), options), cls

    def _loss(self, key: Key, name: str, value: Any, task: type[Any] | None) -> LossSpec | None:
        options = dict(value) if isinstance(value, Mapping) else {"weight": value}
        at = (*key, "weight") if isinstance(value, Mapping) else key
        weight = options.pop("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            self.recipe.error(at, f"the weight of loss `{name}` should be a finite number", f"got {toml_value(weight)}")
            return None
        terms = self._terms(task)
        kinds = catalog().names("loss")
        if name in kinds and name in (terms or ()):
            self.recipe.error(
                key, f"`{name}` is a loss and also a term of this quantizer; one of them needs another name"
            )
            return None
        if terms is not None and name in terms:
            if options:
                self.recipe.error(
                    (*key, next(iter(options))), f"`{name}` is a term of the quantizer and has no options"
                )
                return None
            return LossSpec(name, float(weight), None)
        if name not in kinds:
            if terms is not None:  # else a broken [quantizer] may have it
                self._unknown_loss(key, name, sorted(terms or ()), kinds)
            return None
        cls = self.recipe.component("loss", name, key)
        spec = self.recipe.built("loss", name, cls, key, options) if cls else None
        return LossSpec(name, float(weight), name, spec.options) if spec else None

    def _terms(self, task: type[Any] | None) -> frozenset[str] | None:
        """The terms of the quantizer that the task uses (an unknown task may); None where its class is not known."""
        if "quantizer" in self.recipe.unsure:
            return None
        return self.recipe.announced("quantizer")[0] if task is None or "quantizer" in task.uses else frozenset()

    def _unknown_loss(self, key: Key, name: str, terms: list[str], kinds: list[str]) -> None:
        told = f"losses: {listed(kinds)}" + (f"; terms of the quantizer: {listed(terms)}" if terms else "")
        message = f"there is no loss called `{name}`" + ("" if terms else ", and no quantizer with such a term")
        self.recipe.error(key, message, did_you_mean(name, [*kinds, *terms], otherwise=told))

    def _train(self, key: Key, table: Mapping[str, Any], name: str) -> TrainOptions | None:
        """The stage's own options over those of [train]; exactly one of `steps` and `epochs`."""
        own = {k: v for k, v in table.items() if k in self.train.names}
        before = len(self.recipe.errors)
        checked = self.recipe.options(self.train, key, own, f"stage `{name}`")
        if len(self.recipe.errors) > before:
            return None
        given = {k: checked[k] for k in own}
        lengths = [k for k in ("steps", "epochs") if given.get(k) is not None]
        merged = {k: v for k, v in self.defaults.items() if not (lengths and k in ("steps", "epochs"))} | given
        lengths = [k for k in ("steps", "epochs") if merged.get(k) is not None]
        if len(lengths) == 2:
            at = (*key, "epochs") if "epochs" in own else ("train", "epochs")
            self.recipe.error(at, f"stage `{name}` has both `steps` and `epochs`", "one of them says when it ends")
            return None
        if not lengths:
            told = self.recipe.table.get("train")
            if not (isinstance(told, Mapping) and ("steps" in told or "epochs" in told)):  # else reported at [train]
                self.recipe.error(key, f"stage `{name}` does not say how long it is", "steps = 1000, or epochs = 10")
            return None
        return TrainOptions(**merged)


class Knobs:
    """Checks what a stage sets and schedules: `quantizer.temperature`, `task.own_tokens`, `losses.mse`, `lr`."""

    def __init__(self, recipe: Checker, task: type[Any] | None, losses: Mapping[str, Any]) -> None:
        self.recipe = recipe
        self.task = task
        self.losses = losses

    def set(self, key: Key, target: str, value: Any) -> bool:
        """Whether a knob may be set to the value; if not, why is noted."""
        if self._unquoted(key, target, value) or not self._known(key, target):
            return False
        if target == "lr":
            self.recipe.error(key, "`lr` is no knob to set", "lr = ... in the stage itself")
            return False
        number = isinstance(value, bool | int | float | str)
        if not number or (isinstance(value, float) and not math.isfinite(value)):
            self.recipe.error(
                key, f"`{target}` should be a number, true, false or a string", f"got {toml_value(value)}"
            )
            return False
        return self._fits_option(key, target, value)

    def schedule(self, key: Key, target: str, value: Any) -> ScheduleSpec | None:
        """A checked schedule of a knob."""
        if self._unquoted(key, target, value) or not self._known(key, target):
            return None
        spec, _ = self.recipe.part("schedule", key, value)
        return ScheduleSpec(target, spec.kind, spec.options) if spec else None

    def _owners(self) -> dict[str, frozenset[str]]:
        """What has knobs here, and which."""
        parts = {name: self.recipe.announced(name)[1] for name in self.recipe.classes}
        task = {"task": frozenset(self.task.knobs)} if self.task is not None else {}
        return {name: knobs for name, knobs in parts.items() if knobs} | task | {"losses": frozenset(self.losses)}

    def _unquoted(self, key: Key, target: str, value: Any) -> bool:
        """Tell of `schedule.quantizer.temperature = ...`, which TOML reads as nested tables."""
        if not isinstance(value, Mapping) or "kind" in value or "." in target or target == "lr":
            return False
        inner = next(iter(value), "KNOB")
        table = key[-2]
        self.recipe.error(
            (*key, inner) if value else key,
            f"the dots of a knob's name belong in quotes: `{target}.{inner}`",
            f'{table}."{target}.{inner}" = ...',
        )
        return True

    def _known(self, key: Key, target: str) -> bool:
        owner, _, knob = target.partition(".")
        owners = self._owners()
        if target == "lr" or knob in owners.get(owner, ()):
            return True
        if owner in self.recipe.unsure or (owner == "task" and self.task is None):
            return False  # reported already: its class is not known
        every = ["lr", *(f"{name}.{one}" for name, knobs in owners.items() for one in sorted(knobs))]
        self.recipe.error(
            key,
            f"there is no knob called `{target}`",
            did_you_mean(target, every, otherwise=f"knobs here: {listed(every)}"),
        )
        return False

    def _fits_option(self, key: Key, target: str, value: Any) -> bool:
        """Where a part's option is called like the knob, the value must pass as that option."""
        owner, _, knob = target.partition(".")
        cls = self.task if owner == "task" else self.recipe.classes.get(owner)
        try:
            options = options_of(cls) if cls is not None else None
        except VqtoolError:
            return True  # reported with its part
        if options is None or knob not in options.names:
            return True
        _, problems = options.check({knob: value}, target)
        found = [p for p in problems if p.path[:1] == (knob,)]
        for problem in found:
            self.recipe.error(key, problem.message, problem.hint)
        return not found
