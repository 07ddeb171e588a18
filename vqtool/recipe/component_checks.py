"""The checks of tables that name components: parts, and `[[stage]]` with its task, losses, knobs and schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.forms import STAGE_NAME
from vqtool.recipe.options import Chosen, Options, options_of, toml_value
from vqtool.recipe.places import Key, Places
from vqtool.recipe.spec import LossSpec, PartSpec, ScheduleSpec, StageSpec, TrainOptions, table_of
from vqtool.suggest import did_you_mean, listed

if TYPE_CHECKING:
    from vqtool.api import Nested

KEYS = ("name", "task", "options", "losses", "set", "schedule")
RESERVED = ("best", "last", "resume")  # files of a run that are called so


class PartChecker:
    """Checks components and their options; `errors` collects every problem with its place.

    With `as_given`, options hold what the table gives and no defaults.
    """

    def __init__(self, places: Places, folder: Path | None, *, as_given: bool = False) -> None:
        self.places = places
        self.folder = folder
        self.as_given = as_given
        self.errors: list[VqtoolError] = []
        self.warnings: list[str] = []
        self.parts: dict[str, PartSpec] = {}
        self.classes: dict[str, type[Any]] = {}  # of parts, by table name
        self.unsure: set[str] = set()  # tables whose class is not known

    def error(self, key: Sequence[str | int], message: str, hint: str | None = None) -> None:
        """Note a problem at a key."""
        self.errors.append(VqtoolError(message, hint=hint, where=self.places.where(key)))

    def options(
        self, options: Options, key: Key, table: Mapping[str, Any], what: str, *, page: str = ""
    ) -> dict[str, Any]:
        """A table's checked options; problems are noted below `key`.

        Paths of the recipe are relative to its folder, those of the command line to the working folder.
        """
        typed = {name for name in table if self.places.overridden((*key, name))}
        checked, problems = options.check(table, what, folder=self.folder, typed=typed, page=page)
        for problem in problems:
            self.error((*key, *problem.path), problem.message, problem.hint)
        return {name: value for name, value in checked.items() if name in table} if self.as_given else checked

    def component(self, role: str, kind: Any, at: Key) -> type[Any] | None:
        """The class of a kind; None, and the problem noted at `at`, where there is none."""
        if not isinstance(kind, str):
            self.error(at, f"`{at[-1]}` should be a string that names the {role}", f"vqtool plugins {role}")
            return None
        try:
            return catalog().load(role, kind)
        except VqtoolError as error:
            error.where = self.places.where(at)
            self.errors.append(error)
            return None

    def part(self, role: str, key: Key, table: Any) -> tuple[PartSpec | None, type[Any] | None]:
        """A table with a `kind`: the part it names, and its class."""
        label = f"{key[-2]}[{key[-1]}]" if isinstance(key[-1], int) else f"[{key[-1]}]"
        if not isinstance(table, Mapping):
            self.error(key, f"`{key[-1]}` should be a table", f'{label} with kind = "..."')
            return None, None
        if "kind" not in table:
            self.error(key, f"`{label}` needs a `kind`", f"one of {listed(catalog().names(role))}")
            return None, None
        kind = table["kind"]
        cls = self.component(role, kind, (*key, "kind"))
        if cls is None:
            return None, None
        rest = {name: value for name, value in table.items() if name != "kind"}
        return self.built(role, kind, cls, key, rest), cls

    def built(self, role: str, kind: str, cls: type[Any], key: Key, table: Mapping[str, Any]) -> PartSpec | None:
        """A part of a known class, its options checked."""
        before = len(self.errors)
        try:
            options = options_of(cls)
        except VqtoolError as error:
            self.errors.append(error)
            return None
        what = f'{role} "{kind}"'
        current = options.current(table)
        self.warnings += [f"{what}: the option `{old}` is now called `{options.former[old]}`"
                          for old in table if old not in current]  # fmt: skip
        checked = self.options(options, key, current, what, page=f"vqtool plugins {role} {kind}")
        for name, mark in options.nested.items() if len(self.errors) == before else ():
            checked[name] = self.nested(mark, (*key, name), checked[name])
        return PartSpec(role, kind, checked) if len(self.errors) == before else None

    def nested(self, mark: Nested, key: Key, value: Any) -> Any:
        """An option that is a component: a table with a `kind`, a kind alone or, where there may be many, a list."""
        if isinstance(value, list | tuple):
            return tuple(self.nested(mark, (*key, i), one) for i, one in enumerate(value))
        spec, cls = self.part(mark.role, key, table_of(value))
        return None if spec is None or cls is None else Chosen(spec.kind, spec.options, cls)

    def announced(self, name: str) -> tuple[frozenset[str], frozenset[str]]:
        """(terms, knobs) of the part `[name]`: a quantizer's depend on its options."""
        cls = self.classes.get(name)
        terms, knobs = frozenset(getattr(cls, "terms", ())), frozenset(getattr(cls, "knobs", ()))
        if cls is not None and hasattr(cls, "announced") and name in self.parts:
            terms, knobs = cls.announced(self.parts[name].options)
        return terms, knobs | getattr(cls, "training_knobs", frozenset())


def checked_measure(role: str, given: str | Mapping[str, Any], folder: Path | None) -> PartSpec:
    """A metric or a baseline of a checked recipe, its class loaded and its options checked, defaults filled in.

    Raises:
        VqtoolError: it is not installed, or has no such options.
    """
    checks = PartChecker(Places("", "[evaluate]"), folder)
    spec, _ = checks.part(role, ("evaluate",), table_of(given))
    if spec is None:
        raise checks.errors[0]
    return spec


class StageChecker:
    """Checks the stages of one recipe, in order; `uses` gathers the parts that their tasks use."""

    def __init__(
        self, checks: PartChecker, train: Options, defaults: dict[str, Any], given: Any, *, trains: bool = True
    ) -> None:
        self.checks = checks
        self.trains = trains  # else losses are not looked into
        self.train = train
        self.defaults = defaults  # what [train] gives, checked
        self.train_table = given  # [train] as it was given
        self.uses: set[str] = set()
        self.unsure = False  # whether some stage's task is not known
        self._names: set[str] = set()

    def stage(self, index: int, table: Any) -> StageSpec | None:
        """One stage, or None where it has errors."""
        key: Key = ("stage", index)
        if not isinstance(table, Mapping):
            self.checks.error(key, "a stage should be a table", "[[stage]]")
            return None
        before = len(self.checks.errors)
        name = self._name(key, table)
        self._unknown_keys(key, table, name)
        task, cls = self._task(key, table)
        given = self._given(key, table, "losses")
        losses = [self._loss((*key, "losses", loss), loss, value, cls) for loss, value in given.items()]
        if not table.get("losses"):
            self.checks.error(key, f"stage `{name}` has no losses", "losses = { NAME = 1.0 }; see vqtool plugins loss")
        knobs = Knobs(self.checks, cls, given)
        set_ = {t: v for t, v in self._given(key, table, "set").items() if knobs.set((*key, "set", t), t, v)}
        schedules = [knobs.schedule((*key, "schedule", t), t, v)
                     for t, v in self._given(key, table, "schedule").items()]  # fmt: skip
        train = self._train(key, table, name)
        if len(self.checks.errors) > before or task is None or train is None:
            return None
        done = tuple(loss for loss in losses if loss is not None)
        return StageSpec(name, task, done, set_, tuple(s for s in schedules if s is not None), train)

    def _name(self, key: Key, table: Mapping[str, Any]) -> str:
        """The stage's name; by default its task's. It names files, and `-s stage.NAME.KEY`."""
        name = table.get("name", table.get("task", f"stage{key[1]}"))
        at = (*key, "name") if "name" in table else key
        if not isinstance(name, str) or not STAGE_NAME.fullmatch(name):
            self.checks.error(
                at, "the name of a stage should be of letters, digits, - and _", f"got {toml_value(name)}"
            )
        elif name in RESERVED:
            self.checks.error(at, f"a stage cannot be called `{name}`: a file of every run is")
        elif name in self._names:
            self.checks.error(at, f"two stages are called `{name}`", 'give one a name: name = "..."')
        self._names.add(str(name))
        return str(name)

    def _unknown_keys(self, key: Key, table: Mapping[str, Any], name: str) -> None:
        known = [*KEYS, *self.train.names]
        for one in table:
            if one not in known:
                near = did_you_mean(one, known, otherwise=f"a stage has {listed(KEYS)}, and the keys of [train]")
                self.checks.error((*key, one), f"stage `{name}` has no key `{one}`", near)

    def _given(self, key: Key, table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        """A table inside the stage; something else there is an error."""
        given = table.get(name, {})
        if isinstance(given, Mapping):
            return given
        self.checks.error((*key, name), f"`{name}` of a stage should be a table", f"{name} = {{ ... }}")
        return {}

    def _task(self, key: Key, table: Mapping[str, Any]) -> tuple[PartSpec | None, type[Any] | None]:
        if "task" not in table:
            self.unsure = True
            self.checks.error(key, "the stage needs a `task`", f"one of {listed(catalog().names('task'))}")
            return None, None
        cls = self.checks.component("task", table["task"], (*key, "task"))
        if cls is None:
            self.unsure = True
            return None, None
        self.uses |= cls.uses
        options = self._given(key, table, "options")
        return self.checks.built("task", table["task"], cls, (*key, "options"), options), cls

    def _loss(self, key: Key, name: str, value: Any, task: type[Any] | None) -> LossSpec | None:
        options = dict(value) if isinstance(value, Mapping) else {"weight": value}
        at = (*key, "weight") if isinstance(value, Mapping) else key
        weight = options.pop("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            self.checks.error(at, f"the weight of loss `{name}` should be a finite number", f"got {toml_value(weight)}")
            return None
        kinds = catalog().names("loss")
        if not self.trains:
            return LossSpec(name, float(weight), name if name in kinds else None, options)
        terms = self._terms(task)
        if name in kinds and name in (terms or ()):
            self.checks.error(
                key, f"`{name}` is a loss and also a term of this quantizer; one of them needs another name"
            )
            return None
        if terms is not None and name in terms:
            if options:
                self.checks.error(
                    (*key, next(iter(options))), f"`{name}` is a term of the quantizer and has no options"
                )
                return None
            return LossSpec(name, float(weight), None)
        if name not in kinds:
            if terms is not None:  # else a broken [quantizer] may have it
                self._unknown_loss(key, name, sorted(terms or ()), kinds)
            return None
        cls = self.checks.component("loss", name, key)
        if cls is not None and not self._discriminated(key, name, cls):
            return None
        spec = self.checks.built("loss", name, cls, key, options) if cls else None
        return LossSpec(name, float(weight), name, spec.options) if spec else None

    def _discriminated(self, key: Key, name: str, cls: type[Any]) -> bool:
        """Whether there is the part that a loss reads, if it is a discriminator."""
        from vqtool.api.loss import opposed

        if not opposed(cls):
            return True
        self.uses.add("discriminator")
        if "discriminator" in self.checks.unsure or "discriminator" in self.checks.classes:
            return True
        hint = f'[discriminator] with kind = "...": {listed(catalog().names("discriminator"))}'
        self.checks.error(key, f"loss `{name}` needs a part `[discriminator]`", hint)
        return False

    def _terms(self, task: type[Any] | None) -> frozenset[str] | None:
        """The terms of the quantizer that the task uses (an unknown task may); None where its class is not known."""
        if "quantizer" in self.checks.unsure:
            return None
        return self.checks.announced("quantizer")[0] if task is None or "quantizer" in task.uses else frozenset()

    def _unknown_loss(self, key: Key, name: str, terms: list[str], kinds: list[str]) -> None:
        known = f"losses: {listed(kinds)}" + (f"; terms of the quantizer: {listed(terms)}" if terms else "")
        message = f"there is no loss called `{name}`" + ("" if terms else ", and no quantizer with such a term")
        self.checks.error(key, message, did_you_mean(name, [*kinds, *terms], otherwise=known))

    def _train(self, key: Key, table: Mapping[str, Any], name: str) -> TrainOptions | None:
        """The stage's own options over those of [train]; exactly one of `steps` and `epochs`."""
        own = {k: v for k, v in table.items() if k in self.train.names}
        before = len(self.checks.errors)
        checked = self.checks.options(self.train, key, own, f"stage `{name}`")
        if len(self.checks.errors) > before:
            return None
        given = {k: checked[k] for k in own}
        lengths = [k for k in ("steps", "epochs") if given.get(k) is not None]
        merged = {k: v for k, v in self.defaults.items() if not (lengths and k in ("steps", "epochs"))} | given
        lengths = [k for k in ("steps", "epochs") if merged.get(k) is not None]
        if len(lengths) == 2:
            at = (*key, "epochs") if "epochs" in own else ("train", "epochs")
            self.checks.error(at, f"stage `{name}` has both `steps` and `epochs`", "one of them says when it ends")
            return None
        if not lengths:
            top = self.train_table
            if not (isinstance(top, Mapping) and ("steps" in top or "epochs" in top)):  # else reported at [train]
                self.checks.error(key, f"stage `{name}` does not say how long it is", "steps = 1000, or epochs = 10")
            return None
        return TrainOptions(**merged)


class Knobs:
    """Checks what a stage sets and schedules: `quantizer.temperature`, `task.own_tokens`, `losses.mse`, `lr`."""

    def __init__(self, checks: PartChecker, task: type[Any] | None, losses: Mapping[str, Any]) -> None:
        self.checks = checks
        self.task = task
        self.losses = losses

    def set(self, key: Key, target: str, value: Any) -> bool:
        """Whether a knob may be set to the value; if not, why is noted."""
        if self._unquoted(key, target, value) or not self._known(key, target):
            return False
        if target == "lr":
            self.checks.error(key, "`lr` is not a knob to set", "lr = ... in the stage itself")
            return False
        number = isinstance(value, bool | int | float | str)
        if not number or (isinstance(value, float) and not math.isfinite(value)):
            self.checks.error(
                key, f"`{target}` should be a number, true, false or a string", f"got {toml_value(value)}"
            )
            return False
        return self._fits_option(key, target, value)

    def schedule(self, key: Key, target: str, value: Any) -> ScheduleSpec | None:
        """A checked schedule of a knob."""
        if self._unquoted(key, target, value) or not self._known(key, target):
            return None
        spec, _ = self.checks.part("schedule", key, value)
        return ScheduleSpec(target, spec.kind, spec.options) if spec else None

    def _owners(self) -> dict[str, frozenset[str]]:
        """What has knobs here, and which."""
        parts = {name: self.checks.announced(name)[1] for name in self.checks.classes}
        task = {"task": frozenset(self.task.knobs)} if self.task is not None else {}
        return {name: knobs for name, knobs in parts.items() if knobs} | task | {"losses": frozenset(self.losses)}

    def _unquoted(self, key: Key, target: str, value: Any) -> bool:
        """Report `schedule.quantizer.temperature = ...`, which TOML reads as nested tables."""
        if not isinstance(value, Mapping) or "kind" in value or "." in target or target == "lr":
            return False
        inner = next(iter(value), "KNOB")
        table = key[-2]
        self.checks.error(
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
        if owner in self.checks.unsure or (owner == "task" and self.task is None):
            return False  # reported already: its class is not known
        every = ["lr", *(f"{name}.{one}" for name, knobs in owners.items() for one in sorted(knobs))]
        self.checks.error(
            key,
            f"there is no knob called `{target}`",
            did_you_mean(target, every, otherwise=f"knobs here: {listed(every)}"),
        )
        return False

    def _fits_option(self, key: Key, target: str, value: Any) -> bool:
        """Where a part's option is called like the knob, the value must pass as that option."""
        owner, _, knob = target.partition(".")
        cls = self.task if owner == "task" else self.checks.classes.get(owner)
        try:
            options = options_of(cls) if cls is not None else None
        except VqtoolError:
            return True  # reported with its part
        if options is None or knob not in options.names:
            return True
        _, problems = options.check({knob: value}, target)
        found = [p for p in problems if p.path[:1] == (knob,)]
        for problem in found:
            self.checks.error(key, problem.message, problem.hint)
        return not found
