"""A user's files for a model: the class that reads and writes them, options set for a call, notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vqtool.api import Data, DataSpec, Files
from vqtool.catalog import catalog
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.recipe import Recipe
from vqtool.recipe.overrides import parse
from vqtool.recipe.recipe import apply_to_resolved


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
    """Show what was done to signals when they were read, as a resampling; each note once."""
    for note in dict.fromkeys(notes):
        out.say(note)
