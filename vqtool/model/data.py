"""The data of a model: the data set that its recipe names, and the files of a user in its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vqtool.api import Data, DataSpec, Files
from vqtool.catalog import catalog
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.recipe import Recipe
from vqtool.recipe.overrides import parse
from vqtool.recipe.portable import is_elsewhere
from vqtool.recipe.recipe import apply_to_resolved


def with_data(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with other data, as --data asks."""
    if "path" not in recipe.data.options:
        raise VqtoolError(f"data `{recipe.data.kind}` has no option `path` that --data could set")
    options = {name: beside(path, value) for name, value in recipe.data.options.items()}
    return replace(recipe, data=replace(recipe.data, options=options | {"path": path}))


def beside(path: Path, value: Any) -> Any:
    """An option; a file whose place was not kept is looked for in the data's folder, or beside their file."""
    if not (isinstance(value, Path) and is_elsewhere(value)):
        return value
    return next((p for p in (path / value.name, path.parent / value.name) if p.exists()), value)


def open_data(recipe: Recipe, *, path: Path | None = None) -> Data:
    """The recipe's data set; `path` replaces its `path` option."""
    options = (recipe if path is None else with_data(recipe, path)).data.options
    check_found(options, given=path is not None)
    data: Data = catalog().make("data", recipe.data.kind, options)
    report_notes(data.notes)
    return data


def check_found(options: Mapping[str, Any], *, given: bool = False) -> None:
    """The files that a recipe names must be there: a checkpoint may have come from another machine.

    Where the data's path is `given` for this call, the data themselves say what is wrong with it.
    """
    for name, path in options.items():
        if not isinstance(path, Path) or path.exists() or (given and name == "path"):
            continue
        where = f"; only the name `{path.name}` was kept" if is_elsewhere(path) else f" at `{path}`"
        if name == "path":
            hint = "give their location with --data PATH (`vqtool train`: -s data.path=PATH)"
            raise VqtoolError(f"the training data are not found{where}", hint=hint)
        raise VqtoolError(f"the file of `data.{name}` is not found{where}", hint="put it beside the data")


def user_files(recipe: Recipe, spec: DataSpec, asked: Mapping[str, Any] | None = None) -> Files:
    """What reads and writes files of the recipe's data kind, with the data options `asked` for in this call.

    Raises:
        VqtoolError: this kind of data has no files of users, or none of these options.
    """
    kind = recipe.data.kind
    data: type[Data] = catalog().load("data", kind)
    if data.files is Files:
        raise VqtoolError(f"the data kind `{kind}` cannot read or write files of a user", exit_code=1)
    return data.files(spec, recipe.data.options, asked)


def options_asked(recipe: Recipe, overrides: Sequence[str]) -> dict[str, Any]:
    """The data's options that `data.KEY=VALUE` set for this call, checked as a recipe's are."""
    keys = []
    for text in overrides:
        parts, _ = parse(text)
        if len(parts) < 2 or parts[0] != "data":
            raise VqtoolError("only options of [data] can be set here", hint="-s data.KEY=VALUE", where=f"-s {text}")
        keys.append(parts[1])
    changed = apply_to_resolved(recipe, overrides).data.options
    return {key: changed[key] for key in keys}


def report_notes(notes: Iterable[str]) -> None:
    """Show what was done to signals when they were read, as a resampling; each note once.

    One that begins with `warning: ` is shown as a warning.
    """
    for note in dict.fromkeys(notes):
        rest = note.removeprefix("warning: ")
        (out.say if rest == note else out.warn)(rest)


def report_skipped(skipped: Sequence[str]) -> int:
    """Warn of what was left out, once the rest is written; the exit code says whether anything was."""
    for sentence in skipped:
        out.warn(sentence)
    return 1 if skipped else 0
