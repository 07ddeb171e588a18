"""A recipe from a checkpoint or a run: what a file of anyone's says passes the checks of a recipe that is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from vqtool.errors import VqtoolError
from vqtool.forms import RESOLVED, damaged, misfit
from vqtool.recipe.checking import Checker, part_roles, role_of
from vqtool.recipe.places import Places
from vqtool.recipe.portable import PATH_MARK, home_of
from vqtool.recipe.spec import EvaluateOptions, Recipe, TrainOptions, diagnose_options


def from_resolved(
    value: Mapping[str, Any],
    *,
    text: str,
    folder: Path | None = None,
    beside: Path | None = None,
    source: Path | str = "the checkpoint",
    only: tuple[Collection[str], Collection[str]] | None = None,
) -> Recipe:
    """Rebuild the recipe that `Recipe.resolved` gave `value` for; later defaults do not change it.

    `folder` is where relative paths are looked for; by default where they are seen from the folder `beside`, in
    which the values were read, or from the working folder. `source` is the file, for messages. `only` names the stages
    and the parts to take, for a model that is used and not trained: their losses are taken as they are.

    Raises:
        VqtoolError: the value is not of this form, or does not pass a check.
    """
    wrong = misfit(value, RESOLVED)
    if wrong is not None:
        raise damaged(source, f"in its recipe, {wrong}")
    file = value.get("file")
    if file is not None and Path(file).name != file:
        raise damaged(source, f"in its recipe, `file` should be a name alone, not `{file}`")
    home = folder if folder is not None else home_of(value, beside)
    table = table_of(value, source)
    if only is not None:
        stages, parts = only
        table = {name: one for name, one in table.items() if name not in value["parts"] or name in parts}
        table["stage"] = [one for one in table["stage"] if one["name"] in stages]
    checker = Checker(table, Places("", source), home, as_given=True, trains=only is None)
    recipe = checker.recipe(text, home / file if home is not None and file else None)
    if checker.errors or recipe is None:
        first, *rest = checker.errors
        more = f", and {len(rest)} more problems" if rest else ""
        raise VqtoolError(
            f"`{source}` holds a recipe that cannot be used: {first.message}{more}",
            hint="it is damaged, or of another version of vqtool or a plugin: `vqtool show` lists versions",
            exit_code=1,
        )
    return recipe


def table_of(value: Mapping[str, Any], source: Path | str) -> dict[str, Any]:
    """The table that `tomllib` would give; keys of its own tables that this version does not know are left out."""
    table: dict[str, Any] = {
        "title": value["title"],
        "seed": value["seed"],
        "deterministic": value["deterministic"],
        "data": _part(value["data"]),
        "evaluate": _evaluate(value["evaluate"]),
        "diagnose": _known(diagnose_options(), value.get("diagnose") or {}),
        "stage": [_stage(stage, source) for stage in value["stages"]],
    }
    roles = part_roles()
    for name, part in value["parts"].items():
        if name in table or part["role"] != role_of(name, roles):
            raise damaged(source, f"in its recipe, `{name}` is not the name of a {part['role']}")
        table[name] = _part(part)
    return table


def _stage(stage: Mapping[str, Any], source: Path | str) -> dict[str, Any]:
    losses = {one["name"]: {**_plain(one["options"]), "weight": one["weight"]} for one in stage["losses"]}
    schedules = {one["target"]: _part(one) for one in stage["schedules"]}
    once(source, "loss", [one["name"] for one in stage["losses"]])
    once(source, "schedule", [one["target"] for one in stage["schedules"]])
    return {
        "name": stage["name"],
        "task": stage["task"]["kind"],
        "options": _plain(stage["task"]["options"]),
        "losses": losses,
        "set": _plain(stage["set"]),
        "schedule": schedules,
        **_known(TrainOptions, stage["train"]),
    }


def once(source: Path | str, what: str, names: Iterable[str]) -> None:
    """No name may be there twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise damaged(source, f"in its recipe, a stage has two of the {what} `{name}`")
        seen.add(name)


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    options = _plain(part["options"])
    return {**options, "kind": _current_kind(part["kind"], options)}


def _current_kind(kind: str, options: Mapping[str, Any]) -> str:
    """The name of a kind today: `routed` once had the option `modes`."""
    return "routed-modes" if kind == "routed" and "modes" in options else kind


def _evaluate(value: Mapping[str, Any]) -> dict[str, Any]:
    """`[evaluate]`, whose baseline `block-rvq-8k` is now `block-rvq` with the option `levels`."""
    table = _known(EvaluateOptions, value)
    if isinstance(names := table.get("baselines"), list):
        now = {"block-rvq-8k": {"kind": "block-rvq", "levels": 4}}
        table["baselines"] = [now.get(one, one) if isinstance(one, str) else one for one in names]
    return table


def _known(model: Any, table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in _plain(table).items() if key in model.model_fields}


def _plain(value: Any) -> Any:
    """A value as TOML has it: a path is text."""
    if isinstance(value, Mapping):
        if set(value) == {PATH_MARK} and isinstance(value[PATH_MARK], str):
            return value[PATH_MARK]
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
