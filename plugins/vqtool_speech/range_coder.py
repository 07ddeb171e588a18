"""A range coder with adaptive frequencies, in integers only: small numbers in few bits, the same on every machine.

Carry-less, 32 bits (Subbotin 1999, after Martin 1979). A table that is used for coding is updated alike on both sides.
"""

from __future__ import annotations

TOP, BOTTOM, MASK = 1 << 24, 1 << 16, (1 << 32) - 1
STEP, MOST = 48, 1 << 13  # what a symbol that was seen gains; the sum at which a table forgets half


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


class Encoder:
    """Symbols to bytes."""

    def __init__(self) -> None:
        self.low, self.range = 0, MASK
        self.out = bytearray()

    def put(self, symbol: int, table: Table) -> None:
        """Code a symbol and let the table learn from it."""
        share = self.range // table.total
        self.low = (self.low + share * sum(table.frequencies[:symbol])) & MASK
        self.range = share * table.frequencies[symbol]
        while _settled(self):
            self.out.append(self.low >> 24)
            self.low = (self.low << 8) & MASK
        table.saw(symbol)

    def finish(self) -> bytes:
        """All bytes."""
        return bytes(self.out) + self.low.to_bytes(4, "big")


class Decoder:
    """Bytes back to symbols; `at` is how many bytes of `content` were used, those beyond its end being zeros."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 4
        self.low, self.range = 0, MASK
        self.code = int.from_bytes(content[:4].ljust(4, b"\0"), "big")

    def get(self, table: Table) -> int:
        """The next symbol."""
        share = self.range // table.total
        value = min(((self.code - self.low) & MASK) // share, table.total - 1)
        symbol, below = 0, 0
        while below + table.frequencies[symbol] <= value:
            below += table.frequencies[symbol]
            symbol += 1
        self.low = (self.low + share * below) & MASK
        self.range = share * table.frequencies[symbol]
        while _settled(self):
            byte = self.content[self.at] if self.at < len(self.content) else 0
            self.code = ((self.code << 8) | byte) & MASK
            self.low = (self.low << 8) & MASK
            self.at += 1
        table.saw(symbol)
        return symbol


def _settled(coder: Encoder | Decoder) -> bool:
    """Whether the highest byte is final; the range is then (or was, to avoid a carry) made larger by a byte."""
    if (coder.low ^ (coder.low + coder.range)) >= TOP:
        if coder.range >= BOTTOM:
            return False
        coder.range = -coder.low & (BOTTOM - 1)
    coder.range = (coder.range << 8) & MASK
    return True
