"""The recipes and pages that come with vqtool, and copying a recipe with the sample data that it names."""

from __future__ import annotations

import importlib.metadata
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vqtool
from vqtool.errors import VqtoolError
from vqtool.files import make_dir, write_atomic
from vqtool.suggest import did_you_mean, listed

SCHEMA = "recipe.schema.json"


def folder() -> Path:
    """Where the shipped recipes are: in a source tree beside the package, else where a wheel's data files were put.

    Raises:
        VqtoolError: this installation has none.
    """
    site = Path(vqtool.__file__).parents[1]
    for found in (*_in_source_tree(site), *_installed(), site / "share" / "vqtool" / "recipes"):  # last: pip --target
        if any(found.glob("*.toml")):
            return found
    raise VqtoolError("this installation carries no recipes", hint="pip install --force-reinstall vqtool", exit_code=1)


def _in_source_tree(root: Path) -> Iterator[Path]:
    if (root / "pyproject.toml").is_file():
        yield root / "recipes"


def _installed() -> Iterator[Path]:
    """The folder that the distribution's record names."""
    try:
        files = importlib.metadata.files("vqtool") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        path = Path(str(file.locate())).resolve()
        if path.suffix == ".toml" and path.parent.parts[-2:] == ("vqtool", "recipes"):
            yield path.parent


def template() -> Path:
    """The folder of the example plugin, which `vqtool new plugin` copies.

    Raises:
        VqtoolError: this installation has none.
    """
    for found in (folder().parent / "plugins" / "example", folder().parent / "example"):
        if (found / "pyproject.toml").is_file():
            return found
    raise VqtoolError("this installation carries no plugin to copy", hint="pip install --force-reinstall vqtool")


def pages() -> Path:
    """The folder of the documentation's pages; it lies beside that of the recipes."""
    return folder().parent / "docs"


def names() -> list[str]:
    """The shipped recipes by name."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def find(name: str) -> Path:
    """A shipped recipe's file."""
    if name not in names():
        raise VqtoolError(
            f"there is no shipped recipe called `{name}`", hint=did_you_mean(name, names(), otherwise=listed(names()))
        )
    return folder() / f"{name}.toml"


def samples(recipe: Path) -> list[Path]:
    """The files below the recipe's folder that its options name, or that lie in a folder they name, relative to it."""
    found = []
    for text in _strings(tomllib.loads(recipe.read_text(encoding="utf-8"))):
        path = Path(text)
        inside = not path.is_absolute() and ".." not in path.parts and len(path.parts) > 0
        if inside and (recipe.parent / path).is_file():
            found.append(path)
        elif inside and len(path.parts) > 1 and (recipe.parent / path).is_dir():  # one word may be anything but a path
            files = (file for file in (recipe.parent / path).rglob("*") if file.is_file())
            found.extend(sorted(file.relative_to(recipe.parent) for file in files))
    return found


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _strings(item)


def copy(source: Path, target: Path) -> list[Path]:
    """Copy a recipe and its samples to `target` and beside it; what is there already is never changed.

    Returns the files written. Raises:
        VqtoolError: a file with another content is in the way; then nothing is written at all.
    """
    beside = [*samples(source), *([Path(SCHEMA)] if (source.parent / SCHEMA).is_file() else [])]
    if os.path.lexists(target):
        raise VqtoolError(f"`{target}` exists already", hint="give the new recipe another name")
    wanted = {target.parent / path: source.parent / path for path in beside}
    for path, origin in wanted.items():
        if path.exists() and path.name != SCHEMA and not same(path, origin):
            raise VqtoolError(
                f"`{path}` exists and differs from the sample that the recipe needs", hint="begin in another folder"
            )
    text = renamed(source.read_text(encoding="utf-8"), source.stem, target)
    written = []
    for path, origin in wanted.items():
        if not path.exists():
            make_dir(path.parent)
            write_atomic(path, origin.read_bytes())
            written.append(path)
    make_dir(target.parent)
    write_atomic(target, text.encode())
    return [target, *written]


def renamed(text: str, name: str, target: Path) -> str:
    """The recipe's text with the commands in its comments naming the new file."""
    return re.sub(rf"(?m)^(#.*\s)(?:recipes/)?{re.escape(name)}\.toml\b", lambda m: m[1] + target.as_posix(), text)


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    if not one.is_file() or one.stat().st_size != other.stat().st_size:
        return False
    return one.resolve() == other.resolve() or one.read_bytes() == other.read_bytes()
