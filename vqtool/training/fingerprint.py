"""Whether a run's data are still those it began with: their sizes, and a hash of what is in them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vqtool.errors import VqtoolError
from vqtool.model.runs import is_run

WHOLE = 1 << 27  # up to so many bytes (128 MiB) everything is hashed; of more data, blocks all over them
BLOCK = 1 << 16
MOST_BLOCKS = 1 << 10  # 64 MiB

Fingerprint = dict[str, dict[str, Any]]


def fingerprint(
    options: Mapping[str, Any], files_read: Callable[[Path], Sequence[Path]] = lambda folder: [folder]
) -> Fingerprint:
    """Files, bytes and a hash for each of the data's options that is a path, by the option's name.

    Of a folder those files count that are read of it, by name and size; by default all but hidden ones and those of
    runs. No absolute path and no time is part of it: data may be copied and moved.
    """
    return {name: _of(path, files_read) for name, value in options.items() for name, path in _paths(name, value)}


def changes(before: Mapping[str, Any], now: Fingerprint) -> list[str]:
    """One sentence for each option whose data differ."""
    return [
        f"`data.{name}` had {_size(before[name])} and has {_size(found)}"
        if _size(before[name]) != _size(found)
        else f"`data.{name}` still has {_size(found)}, with other contents"
        for name, found in now.items()
        if name in before and before[name] != found
    ]


def _paths(name: str, value: Any) -> Iterator[tuple[str, Path]]:
    if isinstance(value, Path):
        yield name, value
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _paths(f"{name}.{number}", item)


def _size(found: Mapping[str, Any]) -> str:
    files = found.get("files")
    return f"{files:,} file{'' if files == 1 else 's'} of {found.get('bytes'):,} bytes"


def _of(path: Path, files_read: Callable[[Path], Sequence[Path]]) -> dict[str, Any]:
    listed = sorted(_files(path, files_read))
    total = sum(size for _, size in listed)
    digest = hashlib.sha256()
    for name, size in listed:
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
    for name, size in listed[:: 1 if total <= WHOLE else -(-len(listed) // MOST_BLOCKS)]:
        with contextlib.suppress(OSError):  # what cannot be read, the data's own reader reports
            _hash(path / name if name else path, size, None if total <= WHOLE else MOST_BLOCKS // len(listed), digest)
    return {"files": len(listed), "bytes": total, "sha256": digest.hexdigest()}


def _files(path: Path, files_read: Callable[[Path], Sequence[Path]]) -> set[tuple[str, int]]:
    """The relative names and sizes of the files at or below a path; a file's own name is no part of it."""
    try:
        found = files_read(path) if path.is_dir() else [path]
    except VqtoolError:  # the data's own reader reports it
        found = []
    listed = set()
    for file in (file for one in found for file in (_below(one) if one.is_dir() else [one])):
        with contextlib.suppress(OSError):
            listed.add((Path(os.path.relpath(file, path)).as_posix() if file != path else "", file.stat().st_size))
    return listed


def _below(folder: Path) -> Iterator[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = [n for n in folders if not n.startswith(".") and not is_run(Path(at, n))]
        yield from (Path(at, name) for name in names if not name.startswith("."))


def _hash(file: Path, size: int, blocks: int | None, digest: Any) -> None:
    """Take a file whole (None), or its first and last block and others evenly between."""
    with file.open("rb") as opened:
        if blocks is None or size <= 2 * BLOCK:
            while chunk := opened.read(1 << 20):
                digest.update(chunk)
            return
        blocks = max(2, blocks)
        for number in range(blocks):
            opened.seek((size - BLOCK) * number // (blocks - 1))
            digest.update(opened.read(BLOCK))
