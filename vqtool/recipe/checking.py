"""The checks of a recipe's tables, from the top down; each problem is noted with its place and the rest goes on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtool.catalog import catalog, nested_options
from vqtool.errors import VqtoolError
from vqtool.recipe.options import Chosen, Options, options_of, toml_value
from vqtool.recipe.places import Key, Places
from vqtool.recipe.spec import (
    EvaluateOptions,
    PartSpec,
    Recipe,
    StageSpec,
    TopOptions,
    TrainOptions,
    diagnose_options,
)
from vqtool.recipe.stages import StageChecker
from vqtool.suggest import did_you_mean, listed

if TYPE_CHECKING:
    from vqtool.api import Nested

NOT_PARTS = (
    "data",
    "task",
    "loss",
    "metric",
    "baseline",
    "schedule",
    "estimator",
)  # roles that are named in other places
PART_NAME = re.compile(r"[A-Za-z0-9_-]+")
TABLES = ("data", "train", "evaluate", "diagnose", "stage")
TOP, TRAIN, EVALUATE = Options(TopOptions), Options(TrainOptions), Options(EvaluateOptions)
ELSEWHERE = {  # what people write as a table of its own, and where it belongs
    "loss": "losses belong to a [[stage]]: losses = { NAME = 1.0 }",
    "losses": "losses belong to a [[stage]]: losses = { NAME = 1.0 }",
    "task": 'a task belongs to a [[stage]]: task = "NAME"',
    "metric": "metrics are named in [evaluate]",
    "metrics": "metrics are named in [evaluate]",
    "baseline": "baselines are named in [evaluate]",
    "baselines": "baselines are named in [evaluate]",
    "schedule": 'schedules belong to a [[stage]]: schedule."quantizer.temperature" = { kind = ... }',
    "set": 'knobs are set in a [[stage]]: set = { "quantizer.temperature" = 1.0 }',
}


def part_roles() -> list[str]:
    """The roles that a recipe's tables can have."""
    return [role for role in catalog().roles if role not in NOT_PARTS]


def role_of(table: str) -> str | None:
    """The role of a part's table: its name, or what follows a `_`: `[prior_conditioner]` is a conditioner."""
    fits = [role for role in part_roles() if table == role or table.endswith(f"_{role}")]
    return max(fits, key=len, default=None)


class Checker:
    """Checks one recipe; `errors` holds what was found.

    With `as_given`, options hold what the table gives and no defaults, and what [evaluate] names is not loaded.
    """

    def __init__(
        self, table: Mapping[str, Any], places: Places, folder: Path | None, *, as_given: bool = False
    ) -> None:
        self.as_given = as_given
        self.table = table
        self.places = places
        self.folder = folder
        self.errors: list[VqtoolError] = []
        self.parts: dict[str, PartSpec] = {}
        self.classes: dict[str, type[Any]] = {}  # of parts, by table name
        self.unsure: set[str] = set()  # tables that are there but whose class is not known

    def error(self, key: Sequence[str | int], message: str, hint: str | None = None) -> None:
        """Note a problem at a key."""
        self.errors.append(VqtoolError(message, hint=hint, where=self.places.where(key)))

    def recipe(self, text: str, path: Path | None) -> Recipe | None:
        """The checked recipe, or None where there are errors."""
        top = self.options(TOP, (), {k: self.table[k] for k in TOP.names if k in self.table}, "the recipe")
        train = self.own_table("train", TRAIN)
        evaluate = self.own_table("evaluate", EVALUATE)
        diagnose = self.own_table("diagnose", Options(diagnose_options()))
        data = self._data()
        for name, table in self.table.items():
            if name not in TABLES and name not in TOP.names:
                self._part(name, table)
        stages = self._stages(train)
        if not self.as_given:
            self._names_in_evaluate()
        if self.errors or data is None:
            return None
        return Recipe(
            text=text,
            path=path,
            title=top["title"],
            seed=top["seed"],
            deterministic=top["deterministic"],
            data=data,
            parts=self.parts,
            stages=tuple(stages),
            evaluate=EvaluateOptions(**evaluate),
            diagnose=diagnose,
            folder=self.folder,
        )

    def own_table(self, name: str, options: Options) -> dict[str, Any]:
        """`[train]`, `[evaluate]` or `[diagnose]`, checked: what it gives, of [evaluate] with defaults."""
        table = self.table.get(name, {})
        if not isinstance(table, Mapping):
            self.error((name,), f"`{name}` should be a table", f"[{name}]")
            return {}
        checked = self.options(options, (name,), table, f"`[{name}]`")
        return {key: value for key, value in checked.items() if key in table} if name != "evaluate" else checked

    def options(
        self, options: Options, key: Key, table: Mapping[str, Any], what: str, *, page: str = ""
    ) -> dict[str, Any]:
        """A table's checked options; problems are noted below `key`."""
        checked, problems = options.check(table, what, folder=self.folder, page=page)
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
            where = self.places.where(at)
            self.errors.append(VqtoolError(error.message, hint=error.hint, where=where, exit_code=error.exit_code))
            return None

    def part(self, role: str, key: Key, table: Any) -> tuple[PartSpec | None, type[Any] | None]:
        """A table with a `kind`: the part it names, and its class."""
        label = f"[{key[-1]}]"
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
        checked = self.options(options, key, table, f'{role} "{kind}"', page=f"vqtool plugins {role} {kind}")
        for name, mark in nested_options(cls).items() if len(self.errors) == before else ():
            checked[name] = self.nested(mark, (*key, name), checked[name])
        return PartSpec(role, kind, checked) if len(self.errors) == before else None

    def nested(self, mark: Nested, key: Key, value: Any) -> Any:
        """An option that is a component: a table with a `kind`, a kind alone or, where there may be many, a list."""
        if isinstance(value, list | tuple):
            return tuple(self.nested(mark, (*key, i), one) for i, one in enumerate(value))
        spec, cls = self.part(mark.role, key, {"kind": value} if isinstance(value, str) else value)
        return None if spec is None or cls is None else Chosen(spec.kind, spec.options, cls)

    def _data(self) -> PartSpec | None:
        if "data" not in self.table:
            self.error((), "the recipe has no `[data]`", 'a table [data] with kind = "..."; see vqtool plugins data')
            return None
        return self.part("data", ("data",), self.table["data"])[0]

    def _part(self, name: str, table: Any) -> None:
        role = role_of(name)
        if role is None:
            self._unknown_top(name, table)
            return
        if not PART_NAME.fullmatch(name):
            self.error((name,), "the name of a part should be of letters, digits, - and _", f"got {toml_value(name)}")
            return
        self.unsure.add(name)
        spec, cls = self.part(role, (name,), table)
        if cls is not None:
            self.classes[name] = cls
            self.unsure.discard(name)
        if spec is not None:
            self.parts[name] = spec

    def _unknown_top(self, name: str, table: Any) -> None:
        if name in ELSEWHERE:
            self.error((name,), f"`[{name}]` is no table of a recipe", ELSEWHERE[name])
        elif isinstance(table, Mapping | list):
            near = did_you_mean(name, [*part_roles(), *TABLES], otherwise=f"parts: {listed(part_roles())}")
            self.error((name,), f"there is no part called `[{name}]`", near)
        elif name in TRAIN.names:
            self.error((name,), f"`{name}` belongs in `[train]` or a `[[stage]]`")
        else:
            near = did_you_mean(name, [*TOP.names, *part_roles(), *TABLES])
            self.error((name,), f"a recipe has no key `{name}`", near)

    def _stages(self, train: dict[str, Any]) -> list[StageSpec]:
        given = self.table.get("stage")
        if isinstance(given, Mapping) or (given is not None and not isinstance(given, list)):
            self.error(("stage",), "`stage` should be a list of tables", "two brackets: [[stage]]")
            return []
        if not given:
            self.error((), "the recipe has no `[[stage]]`", 'a stage names a task: [[stage]] with task = "..."')
            return []
        checker = StageChecker(self, TRAIN, train)
        stages = [checker.stage(i, table) for i, table in enumerate(given)]
        self._unused(checker)
        return [stage for stage in stages if stage is not None]

    def announced(self, name: str) -> tuple[frozenset[str], frozenset[str]]:
        """(terms, knobs) of the part `[name]`: a quantizer's depend on its options."""
        cls = self.classes.get(name)
        if cls is not None and hasattr(cls, "announced") and name in self.parts:
            return cls.announced(self.parts[name].options)
        return frozenset(getattr(cls, "terms", ())), frozenset(getattr(cls, "knobs", ()))

    def _unused(self, stages: StageChecker) -> None:
        """Every part must be of use to some stage; not told where a task is not known, nor of broken parts."""
        if stages.unsure:
            return
        for name in self.classes:
            if name not in stages.uses:
                used = listed(sorted(stages.uses))
                self.error((name,), f"`[{name}]` is never used", f"the tasks of this recipe use {used}")

    def _names_in_evaluate(self) -> None:
        table = self.table.get("evaluate")
        for key, role in (("metrics", "metric"), ("baselines", "baseline")):
            names = table.get(key) if isinstance(table, Mapping) else None
            for i, name in enumerate(names if isinstance(names, list) else []):
                if isinstance(name, str):
                    self.component(role, name, ("evaluate", key, i))
