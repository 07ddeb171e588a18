"""The one check of what a command writes: against everything that it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from vqtool.catalog import catalog
from vqtool.catalog.discovery import files_in_use
from vqtool.errors import VqtoolError
from vqtool.files import PIPE, check_outputs, is_folder, make_dir, missing_file
from vqtool.model.runs import own_files
from vqtool.recipe import Recipe

if TYPE_CHECKING:
    from vqtool.api import Data, Files


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


def placed(files: Files, source: Path, out: Path, *, decode: bool) -> Path:
    """Where to write what becomes of `source`: `out`, or in it, where that is a folder, a file that is named after it.

    The folder is made then. It is left to `files` where they write several, or take a folder themselves.
    """
    if not is_folder(out) or source == PIPE:
        return out
    if not source.exists():
        raise missing_file(source)
    folder, ending = Path(out), files.endings[decode]
    name = Path(os.path.abspath(source))
    file = folder / f"{name.name if source.is_dir() else name.stem}{ending}"
    if not ending or files.outputs(source, file, decode=decode) != [file]:
        return folder
    if folder.is_dir() and folder.samefile(source):
        raise VqtoolError(f"`{folder}` is an input as well", hint="write to another folder")
    make_dir(folder)
    return file


def _files_in(path: Path, recipe: Recipe | None) -> list[Path]:
    """A file, or what the recipe's data read of a folder; all of it where they cannot say."""
    if recipe is None or not path.is_dir():
        return [path]
    kind: type[Data] = catalog().load("data", recipe.data.kind)
    try:
        return kind.files.inputs(path)
    except VqtoolError:
        return [path]
