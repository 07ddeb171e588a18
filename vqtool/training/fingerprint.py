"""What tells whether a run's data are still those it began with: their sizes, and a hash of what is in them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

WHOLE = 1 << 27  # up to so many bytes (128 MiB) everything is hashed; of more data, blocks all over them
BLOCK = 1 << 16
MOST_BLOCKS = 1 << 10  # 64 MiB

Fingerprint = dict[str, dict[str, Any]]


def fingerprint(options: Mapping[str, Any]) -> Fingerprint:
    """Files, bytes and a hash for each of the data's options that is a path, by the option's name.

    Of a folder all files count, by name and size, but for hidden ones and for runs that lie there. No absolute path and
    no time is part of it: data may be copied and moved.
    """
    return {name: _of(path) for name, value in options.items() for name, path in _paths(name, value)}


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


def _of(path: Path) -> dict[str, Any]:
    listed = sorted(_files(path))
    total = sum(size for _, size in listed)
    digest = hashlib.sha256()
    for name, size in listed:
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
    for name, size in listed[:: 1 if total <= WHOLE else -(-len(listed) // MOST_BLOCKS)]:
        with contextlib.suppress(OSError):  # what cannot be read, the data's own reader reports
            _hash(path / name if name else path, size, None if total <= WHOLE else MOST_BLOCKS // len(listed), digest)
    return {"files": len(listed), "bytes": total, "sha256": digest.hexdigest()}


def _files(path: Path) -> Iterator[tuple[str, int]]:
    """The relative names and sizes of the files at or below a path; a file's own name is no part of it."""
    if not path.is_dir():
        with contextlib.suppress(OSError):
            yield "", path.stat().st_size
        return
    for folder, below, names in os.walk(path):
        below[:] = [n for n in below if not n.startswith(".") and not os.path.isfile(f"{folder}/{n}/resolved.json")]
        for name in names:
            if not name.startswith("."):
                with contextlib.suppress(OSError):
                    file = Path(folder, name)
                    yield file.relative_to(path).as_posix(), file.stat().st_size


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
