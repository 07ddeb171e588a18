"""The one check of what a command writes: against everything that it reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vqtool.catalog.discovery import files_in_use
from vqtool.files import check_outputs
from vqtool.recipe import Recipe


def check(
    *outputs: Path | None,
    inputs: Iterable[Path | None],
    force: bool,
    recipe: Recipe | None = None,
    folder: Path | None = None,
) -> None:
    """Before any work: see `vqtool.files.check_outputs`.

    Inputs are those that the command was given, the one-file plugins, and every file that the recipe names.
    """
    named = recipe.files() if recipe is not None else []
    check_outputs(*outputs, inputs=[*inputs, *files_in_use(), *named], force=force, folder=folder)
