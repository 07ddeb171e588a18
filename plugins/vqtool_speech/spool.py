"""Rows of whole numbers, appended to in turn and read from their beginnings; long ones lie on disk."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError

IN_MEMORY = 2**22  # bytes kept in memory; the rest goes to a temporary file that has no name
TYPES = [np.dtype(f"u{size}") for size in (1, 2, 4, 8)]
Numbers = NDArray[np.int64]


class Spool:
    """Rows of numbers from 0 on, each under a key; a number takes as few bytes as the largest of its block needs."""

    def __init__(self) -> None:
        self.file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  (closed with the object)
        self.end = 0
        self.blocks: dict[Hashable, list[tuple[int, int, int]]] = defaultdict(list)  # offset, count, bytes of each

    def add(self, row: Hashable, values: NDArray[np.integer]) -> None:
        """Append to a row."""
        if not len(values):
            return
        kind = next(kind for kind in TYPES if int(values.max()) <= np.iinfo(kind).max)
        try:
            self.file.seek(self.end)
            self.file.write(values.astype(kind).tobytes())
        except OSError as error:
            raise VqtoolError(
                f"cannot write temporary data to `{tempfile.gettempdir()}`: {error.strerror}",
                hint="free some space there, or set TMPDIR to a folder on another disk",
                exit_code=1,
            ) from error
        self.blocks[row].append((self.end, len(values), kind.itemsize))
        self.end += len(values) * kind.itemsize

    def read(self, row: Hashable) -> Iterator[Numbers]:
        """A row block by block, as it was appended."""
        for offset, count, size in self.blocks[row]:
            self.file.seek(offset)
            kind = next(kind for kind in TYPES if kind.itemsize == size)
            yield np.frombuffer(self.file.read(count * size), kind).astype(np.int64)


class Reader:
    """Takes a row of a spool from its beginning, as many numbers at a time as are asked for."""

    def __init__(self, spool: Spool, row: Hashable) -> None:
        self.blocks = spool.read(row)
        self.held = np.zeros(0, np.int64)

    def take(self, count: int) -> Numbers:
        """The next `count` numbers; fewer at the end of the row."""
        have, parts = len(self.held), [self.held]
        while have < count and (block := next(self.blocks, None)) is not None:
            parts.append(block)
            have += len(block)
        whole = np.concatenate(parts)
        self.held = whole[count:]
        return whole[:count]


class CodeSpool:
    """The codes of one sound, [channels, tokens, levels], added and read piece by piece.

    Of each token the last `counts` levels are sent; only what is sent takes room. Rows of the spool: `("counts", c)`
    and `(level, c)` for each channel c.
    """

    def __init__(self, channels: int, bits: tuple[int, ...]) -> None:
        self.channels, self.bits, self.levels = channels, bits, len(bits)
        self.spool = Spool()
        self.tokens = 0
        self.sent = np.zeros((self.levels, channels), np.int64)  # how many codes of each level and channel

    @property
    def whole(self) -> bool:
        """Whether every token sends all of its levels."""
        return bool((self.sent == self.tokens).all())

    def add(self, codes: Numbers) -> None:
        """Append [channels, n, levels], -1 where a level is not sent.

        Raises:
            ValueError: a code has more bits than its level, or one that is not sent follows one that is.
        """
        counts = (codes >= 0).sum(-1)
        if (codes.max((0, 1), initial=0) >> np.array(self.bits)).any() or not are_levels(codes):
            raise ValueError("a code is too large, or one that is not sent follows one that is")
        self.tokens += codes.shape[1]
        for channel in range(self.channels):
            self.add_counts(channel, counts[channel])
            for level in range(self.levels):
                row = codes[channel, :, level]
                self.spool.add((level, channel), row[row >= 0])

    def add_counts(self, channel: int, counts: Numbers) -> None:
        """Append the numbers of levels that tokens of a channel send; their codes are to follow."""
        self.spool.add(("counts", channel), counts)
        self.sent[:, channel] += sent_of(counts, self.levels).sum(0)

    def reader(self) -> Callable[[int], Numbers]:
        """What gives the next n tokens [channels, n, levels] from the beginning; -1 after the last."""
        levels = [[Reader(self.spool, (k, c)) for k in range(self.levels)] for c in range(self.channels)]
        counts = [Reader(self.spool, ("counts", c)) for c in range(self.channels)]

        def take(count: int) -> Numbers:
            codes = np.full((self.channels, count, self.levels), -1, np.int64)
            for channel, out in enumerate(codes):
                sent = sent_of(counts[channel].take(count), self.levels)
                for level, reader in enumerate(levels[channel]):
                    here = np.flatnonzero(sent[:, level])
                    out[here, level] = reader.take(len(here))
            return codes

        return take


def sent_of(counts: Numbers, levels: int) -> NDArray[np.bool_]:
    """Which levels [..., levels] are sent of tokens that send their last `counts` [...]."""
    return np.arange(levels) >= levels - counts[..., None]


def are_levels(codes: Numbers) -> bool:
    """Whether in `codes` [..., levels] none that is not sent follows one that is: no file holds any others."""
    return bool(((codes >= 0) == sent_of((codes >= 0).sum(-1), codes.shape[-1])).all())
