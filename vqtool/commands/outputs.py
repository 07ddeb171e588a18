"""The one check of what a command writes: against everything that it reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vqtool.catalog.discovery import files_in_use
from vqtool.files import check_outputs
from vqtool.recipe import Recipe
from vqtool.runs import own_files


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
    check_outputs(*outputs, inputs=[*given, *runs, *files_in_use(), *named], force=force, folder=folder)
