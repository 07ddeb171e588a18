"""From a recipe's text to a checked `Recipe`; every problem is found before any is reported."""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vqtool.catalog import catalog
from vqtool.errors import VqtoolError, Where
from vqtool.recipe import overrides as override
from vqtool.recipe.checking import Checker
from vqtool.recipe.options import options_of
from vqtool.recipe.places import Places, one_error
from vqtool.recipe.resolved import table_of
from vqtool.recipe.spec import Recipe
from vqtool.suggest import did_you_mean
from vqtool.untrusted import toml_table

LARGEST = 2**20  # bytes of a recipe
_HINTS = {
    "Invalid value": "text needs quotes; true and false are lower-case",
    "Expected '=' after a key": 'key = value; a key with dots or spaces needs quotes: "quantizer.temperature" = 1',
    "Cannot overwrite a value": "this key is there twice",
    "Unclosed array": "a `]` is missing",
}


def load(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe's file, with `-s` overrides applied.

    Raises:
        VqtoolError: one that carries all the others, each with its place.
    """
    path = Path(path)
    return parse(read_text(path), path=path, overrides=overrides)


def parse(text: str, *, path: Path | None = None, overrides: Iterable[str] = ()) -> Recipe:
    """Check a recipe's text; paths in it are relative to the folder of `path`, else to the working directory."""
    table = read_toml(text, path)
    places = Places(text, path)
    errors = override.apply(table, overrides, places)
    folder = (path.parent if path is not None else Path()).resolve()
    return check_table(table, places, errors, text=text, path=path, folder=folder)


def apply_to_resolved(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """A recipe that a checkpoint holds with options changed; the result is checked as a whole.

    Raises:
        VqtoolError: all problems at once.
    """
    overrides = list(overrides)
    if not overrides:
        return recipe
    places = Places("", "the checkpoint's recipe")
    table = table_of(recipe.values(), "the checkpoint")
    errors = override.apply(table, overrides, places)
    set_now = {tuple(override.parse(text)[0]) for text in overrides} if not errors else set()
    for role, part in recipe.parts.items():
        _leave_foreign(role, part.kind, table.get(role), {path[1] for path in set_now if path[:1] == (role,)})
    return check_table(table, places, errors, text=recipe.text, path=recipe.path, folder=recipe.folder)


def _leave_foreign(role: str, before: str, part: Any, set_now: set[str]) -> None:
    """Of a part that became another kind, drop what only the kind `before` had, except what was `set_now`."""
    if not isinstance(part, dict) or part.get("kind") in (before, None):
        return
    with contextlib.suppress(VqtoolError):  # an unknown kind is an error of the check
        known = options_of(catalog().load(role, str(part["kind"]))).names
        for name in [name for name in part if name not in {*known, *set_now, "kind"}]:
            del part[name]


def check_table(
    table: dict[str, Any],
    places: Places,
    errors: list[VqtoolError],
    *,
    text: str,
    path: Path | None,
    folder: Path | None,
) -> Recipe:
    """Check a recipe's table; `errors` are those found before."""
    checker = Checker(table, places, folder)
    recipe = checker.recipe(text, path)
    errors = [*errors, *checker.errors]
    if errors or recipe is None:
        raise one_error(errors)
    return recipe


def read_text(path: Path) -> str:
    """A recipe's text; what cannot be read is one error."""
    try:
        if path.stat().st_size > LARGEST:
            raise VqtoolError(f"`{path}` has {path.stat().st_size:,} bytes: too many for a recipe")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        beside = map(str, path.parent.glob("*.toml"))  # also where `.toml` was left off
        hint = did_you_mean(str(path), beside, otherwise="vqtool new NAME makes one")
        raise VqtoolError(f"there is no recipe `{path}`", hint=hint) from None
    except UnicodeDecodeError as error:
        raise VqtoolError(
            f"`{path}` is not text: byte {error.start} is not UTF-8", hint="a recipe is a TOML file"
        ) from None
    except OSError as error:
        raise VqtoolError(f"cannot read `{path}`: {error.strerror or error}") from error


def read_toml(text: str, path: Path | None) -> dict[str, Any]:
    """A TOML text as a table; a syntax error names its line."""
    try:
        return toml_table(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error), text, path) from None
    except ValueError as error:
        raise VqtoolError(f"not a recipe: {error}", where=str(path) if path else "recipe") from None


def _syntax_error(error: str, text: str, path: Path | None) -> VqtoolError:
    message = re.sub(r" \(at .*\)$", "", error)
    at = re.search(r"\(at line (\d+), column (\d+)\)$", error)
    lines = text.rstrip("\n").split("\n")
    line, column = (int(at[1]), int(at[2])) if at else (len(lines), len(lines[-1]) + 1)
    shown = lines[line - 1].rstrip("\r") if line <= len(lines) else ""
    where = Where(str(path) if path else "recipe", line, column, shown)
    twice = re.match(r"Cannot declare \((.*?),?\) twice", message)
    if twice:
        name = ".".join(part.strip(" '") for part in twice[1].split(","))
        return VqtoolError(f"the table `[{name}]` is there twice", where=where)
    hint = next((hint for begin, hint in _HINTS.items() if message.startswith(begin)), None)
    return VqtoolError(f"not valid TOML: {message[:1].lower()}{message[1:]}", hint=hint, where=where)
