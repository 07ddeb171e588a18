"""The one check of what a command writes: against everything that it reads."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from vqtool.catalog import catalog
from vqtool.catalog.discovery import files_in_use
from vqtool.errors import VqtoolError
from vqtool.files import check_outputs
from vqtool.model.runs import own_files
from vqtool.recipe import Recipe

if TYPE_CHECKING:
    from vqtool.api import Data


def check(
    *outputs: Path | None,
    inputs: Iterable[Path | None],
    force: bool,
    recipe: Recipe | None = None,
    folder: Path | None = None,
) -> None:
    """Before any work: see `vqtool.files.check_outputs`.

    Inputs are those that the command was given, the run that a checkpoint among them lies in, the one-file plugins, and
    every file that the recipe names.
    """
    given = [path for path in inputs if path is not None]
    runs = [file for path in given if path.suffix == ".safetensors" for file in own_files(path.parent)]
    named = recipe.files() if recipe is not None else []
    read = (file for path in (*given, *named) for file in _files_in(path, recipe))  # listed only where an output exists
    check_outputs(*outputs, inputs=chain(runs, files_in_use(), read), force=force, folder=folder)


def _files_in(path: Path, recipe: Recipe | None) -> list[Path]:
    """A file, or what the recipe's data read of a folder; all of it where they cannot say."""
    if recipe is None or not path.is_dir():
        return [path]
    kind: type[Data] = catalog().load("data", recipe.data.kind)
    try:
        return kind.files.inputs(path)
    except VqtoolError:
        return [path]
