"""A range coder in integers only: likely symbols in few bits, the same on every machine.

Carry-less, 32 bits (Subbotin 1999, after Martin 1979). Frequencies are adaptive (a table that is used for coding is
updated alike on both sides) or known to both sides and fixed.
"""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Protocol

TOP, BOTTOM, MASK = 1 << 24, 1 << 16, (1 << 32) - 1
STEP, MOST = 48, 1 << 13  # what a symbol that was seen gains; the sum at which a table forgets half
FIXED = 1 << 15  # about the sum of fixed frequencies
BLOCK = 1 << 16  # bytes read at a time


class Table:
    """Frequencies of the symbols 0 to n - 1."""

    def __init__(self, frequencies: list[int]) -> None:
        self.frequencies, self.total = frequencies, sum(frequencies)

    def saw(self, symbol: int) -> None:
        """Make a symbol likelier."""
        self.frequencies[symbol] += STEP
        self.total += STEP
        if self.total > MOST:
            self.frequencies = [(f + 1) // 2 for f in self.frequencies]
            self.total = sum(self.frequencies)


class Fixed:
    """Frequencies of very many symbols that stay as they are: at least 1 each, else in proportion to `odds`."""

    def __init__(self, odds: Sequence[float]) -> None:
        spare, total = FIXED - len(odds), sum(odds)
        if spare < len(odds):
            raise ValueError(f"{len(odds)} symbols are too many for a sum of {FIXED}")
        each = [1 + int(spare * max(0.0, one) / total) for one in odds] if total > 0 else [1] * len(odds)
        self.below = [0, *accumulate(each)]  # the sums of those before each symbol, and of all
        self.least_bits = math.log2(self.below[-1] / max(each))  # that a symbol takes


class Encoder:
    """Symbols to bytes."""

    def __init__(self) -> None:
        self.low, self.range = 0, MASK
        self.out = bytearray()

    def put(self, symbol: int, table: Table) -> None:
        """Code a symbol and let the table learn from it."""
        frequencies = table.frequencies
        share = self.range // table.total
        self.low = (self.low + share * sum(frequencies[:symbol])) & MASK
        self.range = share * frequencies[symbol]
        if self.range < TOP:
            self._settle()
        table.saw(symbol)

    def put_fixed(self, symbols: Iterable[int], table: Fixed) -> None:
        """Code symbols by frequencies that stay."""
        below, total = table.below, table.below[-1]
        for symbol in symbols:
            share, first = self.range // total, below[symbol]
            self.low = (self.low + share * first) & MASK
            self.range = share * (below[symbol + 1] - first)
            if self.range < TOP:
                self._settle()

    def _settle(self) -> None:
        while _settled(self):
            self.out.append(self.low >> 24)
            self.low = (self.low << 8) & MASK

    def taken(self) -> bytes:
        """The bytes that are final by now and were not taken before."""
        settled = bytes(self.out)
        self.out.clear()
        return settled

    def finish(self) -> bytes:
        """The last bytes."""
        return self.taken() + self.low.to_bytes(4, "big")


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes: ...


class Decoder:
    """Bytes back to symbols; `at` is how many bytes of `content` (from where it stands) were used.

    Raises EOFError where the content ends before the symbols do.
    """

    def __init__(self, content: Readable | bytes) -> None:
        self.content = io.BytesIO(content) if isinstance(content, bytes) else content
        self.window, self.next, self.before = b"", 0, 0
        self.low, self.range, self.code = 0, MASK, 0
        for _ in range(4):
            self.code = self.code << 8 | self._byte()

    @property
    def at(self) -> int:
        """How many bytes were used."""
        return self.before + self.next

    def get(self, table: Table) -> int:
        """The next symbol."""
        share = self.range // table.total
        value = min(((self.code - self.low) & MASK) // share, table.total - 1)
        symbol, below = 0, 0
        for frequency in table.frequencies:
            if below + frequency > value:
                break
            below += frequency
            symbol += 1
        self.low = (self.low + share * below) & MASK
        self.range = share * frequency
        if self.range < TOP:
            self._settle()
        table.saw(symbol)
        return symbol

    def get_fixed(self, count: int, table: Fixed) -> list[int]:
        """The next `count` symbols, by frequencies that stay."""
        sums, total, symbols = table.below, table.below[-1], []
        for _ in range(count):
            share = self.range // total
            symbol = bisect_right(sums, min(((self.code - self.low) & MASK) // share, total - 1)) - 1
            symbols.append(symbol)
            self.low = (self.low + share * sums[symbol]) & MASK
            self.range = share * (sums[symbol + 1] - sums[symbol])
            if self.range < TOP:
                self._settle()
        return symbols

    def _settle(self) -> None:
        while _settled(self):
            self.code = ((self.code << 8) | self._byte()) & MASK
            self.low = (self.low << 8) & MASK

    def _byte(self) -> int:
        if self.next == len(self.window):
            self.before += self.next
            self.window, self.next = self.content.read(BLOCK), 0
            if not self.window:
                raise EOFError("the codes end early")
        self.next += 1
        return self.window[self.next - 1]


def _settled(coder: Encoder | Decoder) -> bool:
    """Whether the highest byte is final; the range is then (or was, to avoid a carry) made larger by a byte.

    It never is where the range is `TOP` or more, which is the common case and asked first.
    """
    if (coder.low ^ (coder.low + coder.range)) >= TOP:
        if coder.range >= BOTTOM:
            return False
        coder.range = -coder.low & (BOTTOM - 1)
    coder.range = (coder.range << 8) & MASK
    return True
