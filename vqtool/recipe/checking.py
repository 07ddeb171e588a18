"""The checks of a recipe's tables, from the top down; each problem is noted with its place and the rest goes on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vqtool.catalog import catalog
from vqtool.recipe.component_checks import PartChecker, StageChecker
from vqtool.recipe.options import Options, toml_value
from vqtool.recipe.places import Places
from vqtool.recipe.spec import (
    EvaluateOptions,
    PartSpec,
    Recipe,
    StageSpec,
    TopOptions,
    TrainOptions,
    diagnose_options,
    table_of,
)
from vqtool.suggest import did_you_mean, listed

NOT_PARTS = ("data", "task", "loss", "metric", "baseline", "schedule", "estimator")  # roles named in other places
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


def role_of(table: str, roles: Iterable[str]) -> str | None:
    """The one of `roles` that a part's table has: its name, or what follows a `_`, as in `[prior_conditioner]`."""
    fits = [role for role in roles if table == role or table.endswith(f"_{role}")]
    return max(fits, key=len, default=None)


class Checker(PartChecker):
    """Checks one recipe; `errors` holds what was found.

    With `as_given`, options hold what the table gives and no defaults, and what [evaluate] names is not loaded. Where
    nothing `trains`, losses are not looked into.
    """

    def __init__(
        self, table: Mapping[str, Any], places: Places, folder: Path | None, *, as_given: bool = False,
        trains: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(places, folder, as_given=as_given)
        self.trains = trains
        self.roles = part_roles()
        self.table = table

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
            renamed=tuple(self.warnings),
        )

    def own_table(self, name: str, options: Options) -> dict[str, Any]:
        """`[train]`, `[evaluate]` or `[diagnose]`, checked: what it gives, of [evaluate] with defaults."""
        table = self.table.get(name, {})
        if not isinstance(table, Mapping):
            self.error((name,), f"`{name}` should be a table", f"[{name}]")
            return {}
        checked = self.options(options, (name,), table, f"`[{name}]`")
        return {key: value for key, value in checked.items() if key in table} if name != "evaluate" else checked

    def _data(self) -> PartSpec | None:
        if "data" not in self.table:
            self.error((), "the recipe has no `[data]`", 'a table [data] with kind = "..."; see vqtool plugins data')
            return None
        return self.part("data", ("data",), self.table["data"])[0]

    def _part(self, name: str, table: Any) -> None:
        role = role_of(name, self.roles)
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
            self.error((name,), f"a recipe has no table `[{name}]`", ELSEWHERE[name])
        elif isinstance(table, Mapping | list):
            near = did_you_mean(name, [*self.roles, *TABLES], otherwise=f"parts: {listed(self.roles)}")
            self.error((name,), f"there is no part called `[{name}]`", near)
        elif name in TRAIN.names:
            self.error((name,), f"`{name}` belongs in `[train]` or a `[[stage]]`")
        else:
            near = did_you_mean(name, [*TOP.names, *self.roles, *TABLES])
            self.error((name,), f"a recipe has no key `{name}`", near)

    def _stages(self, train: dict[str, Any]) -> list[StageSpec]:
        given = self.table.get("stage")
        if isinstance(given, Mapping) or (given is not None and not isinstance(given, list)):
            self.error(("stage",), "`stage` should be a list of tables", "two brackets: [[stage]]")
            return []
        if not given:
            self.error((), "the recipe has no `[[stage]]`", 'a stage names a task: [[stage]] with task = "..."')
            return []
        checker = StageChecker(self, TRAIN, train, self.table.get("train"), trains=self.trains)
        stages = [checker.stage(i, table) for i, table in enumerate(given)]
        self._unused(checker)
        return [stage for stage in stages if stage is not None]

    def _unused(self, stages: StageChecker) -> None:
        """Every part must be of use to some stage; not checked where a task is unknown, nor for broken parts."""
        if stages.unsure:
            return
        for name in self.classes:
            if name not in stages.uses:
                used = listed(sorted(stages.uses))
                self.error((name,), f"`[{name}]` is never used", f"the tasks of this recipe use {used}")

    def _names_in_evaluate(self) -> None:
        table = self.table.get("evaluate")
        for key, role in (("metrics", "metric"), ("baselines", "baseline")):
            given = table.get(key) if isinstance(table, Mapping) else None
            for i, one in enumerate(given if isinstance(given, list) else []):
                if isinstance(one, str | Mapping):
                    self.part(role, ("evaluate", key, i), table_of(one))
