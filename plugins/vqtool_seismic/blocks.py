"""Where a long miniSEED file can be cut, so that some megabytes of it are read at a time."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from pathlib import Path

SIZE = 2**21  # bytes of a block; a file of no more is read at once, like those of other formats
STEP = 2**16  # bytes between two cuts
HEADER = 512  # bytes of a record that its length is found in
FIRST, LENGTHS = 46, range(7, 21)  # where the first blockette is given; powers of two that records are long
Span = tuple[int, int]  # bytes of a file, from and to


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes of a file, and the time that they cover of one channel."""

    span: Span
    begin: float
    end: float


def is_long(path: Path) -> bool:
    """Whether a file, if it is miniSEED, is read in blocks."""
    return path.stat().st_size > SIZE


def blocks_of(path: Path) -> list[tuple[Span | None, Span | None]]:
    """A miniSEED file in blocks, each with the bytes about its begin, in which two blocks' records stand together.

    None stands for the whole file, where its records do not say how long they are.
    """
    at = cuts(path)
    step = max(1, SIZE // STEP)
    begins = [*range(0, max(0, len(at) - 1), step), len(at) - 1]
    if len(begins) < 3:  # no cut
        return [(None, None)]
    return [
        ((at[low], at[high]), (at[low - 1], at[min(low + 1, high)]) if low else None)
        for low, high in itertools.pairwise(begins)
    ]


def cuts(path: Path) -> list[int]:
    """Where records of a file begin, about every `STEP` bytes, and where it ends; empty where that cannot be found."""
    size, at, made, first, window = path.stat().st_size, 0, [0], 0, b""
    with path.open("rb") as file:
        while at < size:
            if at + HEADER > first + len(window):
                file.seek(at)
                first, window = at, file.read(STEP)
            length = record_length(window, at - first)
            if length is None:
                return []
            at += length
            if at - made[-1] >= STEP and at < size:
                made.append(at)
    return [*made, size]


def record_length(content: bytes, at: int) -> int | None:
    """The length of the miniSEED record that begins at `at`, as its blockette 1000 says; None where there is none."""
    if len(content) < at + 48 or content[at + 6 : at + 7] not in (b"D", b"R", b"Q", b"M"):
        return None
    (year,) = struct.unpack_from(">H", content, at + 20)
    order = ">" if 1900 <= year <= 2100 else "<"
    (offset,) = struct.unpack_from(f"{order}H", content, at + FIRST)
    while offset and at + offset + 8 <= len(content):
        kind, following = struct.unpack_from(f"{order}HH", content, at + offset)
        if kind == 1000:
            return 1 << content[at + offset + 6] if content[at + offset + 6] in LENGTHS else None
        if following <= offset:
            return None
        offset = following
    return None
