"""Words as numbers that need no vocabulary."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

HASHES = 2**31 - 1


def hashed(words: Sequence[str], length: int, piece: int = 0) -> list[int]:
    """A stable hash of each word, of each run of `piece` characters in <word>, then zeros."""
    pieces = [
        f"<{word}>"[i : i + piece] for word in words if 0 < piece <= len(word) for i in range(len(word) + 3 - piece)
    ]
    known = [zlib.crc32(part.encode()) % (HASHES - 1) + 1 for part in [*words, *pieces][:length]]
    return known + [0] * (length - len(known))
