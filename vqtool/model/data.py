"""Opening the data that a recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vqtool.api.data import Data
from vqtool.catalog import catalog
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.recipe import Recipe
from vqtool.recipe.portable import is_elsewhere


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
    for note in data.notes:
        out.say(note)
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
            raise VqtoolError(f"the training data are not found{where}", hint="give their location with --data PATH")
        raise VqtoolError(f"the file of `data.{name}` is not found{where}", hint="put it beside the data")
