"""Paths in files that are passed on: none is absolute, and data are found again beside the run, or by the folder.

A path is kept relative to the recipe's folder, and that folder relative to the run's and to the working folder. Of a
path that is outside of all these only the last part is kept: `--data` says where the data are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PATH_MARK = "$path"  # how a path, relative to the recipe's folder, differs from a string in resolved.json
ELSEWHERE = "(elsewhere)"  # stands for a folder that is not kept


def relative(path: Path, base: Path) -> str | None:
    """`path` from `base` on; None where that would name folders outside of the project.

    Both lie below the working folder, or one of them in the other.
    """
    path, base, here = (Path(os.path.normpath(Path.cwd() / p)) for p in (path, base, "."))
    near = path.is_relative_to(base) or base.is_relative_to(path)
    project = here == home() or not home().is_relative_to(here)  # who works in `/` has no project there
    if near or (project and path.is_relative_to(here) and base.is_relative_to(here)):
        return Path(os.path.relpath(path, base)).as_posix()
    return None


def home() -> Path:
    """The user's own folder; `~` where there is none."""
    return Path(os.path.expanduser("~"))


def frozen_path(path: Path, folder: Path | None) -> str:
    """A path as it is kept; `folder` is the recipe's."""
    if not path.is_absolute():
        return path.as_posix()
    if folder is not None and path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()  # as it was written, with its `..`
    kept = relative(path, folder) if folder is not None else None
    return kept if kept is not None else f"{ELSEWHERE}/{path.name}"


def thawed_path(text: str, folder: Path | None) -> Path:
    """The inverse of `frozen_path`; a path that was not kept stays as it is, and is nowhere."""
    path = Path(text)
    return path if folder is None or path.is_absolute() or is_elsewhere(path) else folder / path


def is_elsewhere(path: Path) -> bool:
    """Whether a path was not kept."""
    return ELSEWHERE in path.parts


def places(folder: Path | None, path: Path | None, beside: Path | None) -> dict[str, str | None]:
    """Where a recipe's folder is, from the folder `beside` that this will lie in, and from the working folder."""
    if folder is None:
        return {"folder": None, "folder_from_cwd": None}
    written = path.parent.as_posix() if path is not None and not path.is_absolute() else relative(folder, Path())
    near = relative(folder, beside.resolve()) if beside is not None else None
    return {"folder": near, "folder_from_cwd": written}


def home_of(value: Mapping[str, Any], beside: Path | None) -> Path | None:
    """The folder of a kept recipe: the first of those it may be in that holds its data, else the first that is there.

    `beside` is where it was read. Until 0.1 the folder was kept as an absolute path.
    """
    kept, from_cwd = value.get("folder"), value.get("folder_from_cwd")
    if "folder_from_cwd" not in value:
        return Path(kept) if kept else None
    options = [beside / kept] if beside is not None and kept is not None else []
    options += [Path(from_cwd)] if from_cwd is not None else []
    options += [beside] if beside is not None else []
    folders = [folder.resolve() for folder in options if folder.is_dir()] or [Path.cwd()]
    data = [thawed_path(text, None) for text in paths_named(value.get("data"))]
    wanted = [path for path in data if not path.is_absolute() and not is_elsewhere(path)]
    return next((f for f in folders if wanted and all((f / path).exists() for path in wanted)), folders[0])


def paths_named(value: Any) -> Iterator[str]:
    """The paths in a resolved recipe, as they are kept there."""
    if isinstance(value, Mapping) and set(value) == {PATH_MARK}:
        yield str(value[PATH_MARK])
        return
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for item in items:
        yield from paths_named(item)


def files_named(value: Mapping[str, Any], beside: Path) -> list[Path]:
    """Every file or folder that a resolved recipe, read in the folder `beside`, names."""
    folder = home_of(value, beside)
    return [thawed_path(text, folder) for text in paths_named(value)]


def without_places(text: str, files: Iterable[Path], folder: Path | None) -> str:
    """A text without the absolute paths of `files`, of the recipe's folder, the working folder and the home."""
    short = {str(path): frozen_path(path, folder).removeprefix(f"{ELSEWHERE}/") for path in files if path.is_absolute()}
    for place, name in ((folder, "."), (Path.cwd(), "."), (home(), "~")):
        if place is not None and len(place.parts) > 1:
            short.setdefault(str(place), name)
    for long in sorted(short, key=len, reverse=True):
        text = re.sub(re.escape(long) + r"(?![\w.-])", short[long].replace("\\", r"\\"), text)
    return text


def plain_word(word: str) -> str:
    """A word of the command line; of an absolute path only what is below this folder is kept, or its last part."""
    key, mark, value = word.rpartition("=")
    path = Path(value.strip("'\""))
    if not path.is_absolute():
        return word
    return f"{key}{mark}{relative(path, Path()) or path.name}"
