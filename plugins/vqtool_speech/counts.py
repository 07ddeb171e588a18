"""How many levels each token sends, range-coded by what the tokens around it lead to expect."""

from __future__ import annotations

from collections.abc import Iterable

from vqtool_speech.range_coder import Decoder, Encoder, Table


class CountCoder:
    """The numbers of levels of one sound, channel after channel, in the order of time and of bands within a moment."""

    def __init__(self, levels: int, bands: int) -> None:
        self.tables, self.bands = count_tables(levels), bands
        self.row: list[int] = []  # of the channel, from a whole moment on

    def begin(self) -> None:
        """A channel begins: nothing is before it."""
        self.row = []

    def put(self, coder: Encoder, counts: Iterable[int]) -> None:
        """Code the next numbers of the channel."""
        row, bands, tables = self.row, self.bands, self.tables
        for count in counts:
            coder.put(count, tables[_expected(row, len(row), bands)])
            row.append(count)
        self._forget()

    def get(self, coder: Decoder, count: int) -> list[int]:
        """The inverse of `put`: the next `count` numbers."""
        row, bands, tables, first = self.row, self.bands, self.tables, len(self.row)
        for at in range(first, first + count):
            row.append(coder.get(tables[_expected(row, at, bands)]))
        numbers = row[first:]
        self._forget()
        return numbers

    def _forget(self) -> None:
        """Drop whole moments but for the last two: no token looks farther back."""
        del self.row[: max(0, len(self.row) // self.bands - 2) * self.bands]


def _expected(row: list[int], at: int, bands: int) -> int:
    """The context of a token: about twice the number of levels that its neighbours lead to expect, not below 0.

    Read are the band below at the same moment, and at the moment before the same band, the one above and the one
    below; the weights are those of a least-squares fit on speech, in elevenths.
    """
    band = at % bands
    below = row[at - 1] if band else 0
    if at < bands:
        return 2 * below
    before = row[at - bands]
    above = row[at - bands + 1] if band + 1 < bands else before
    under = row[at - bands - 1] if band else before
    return max(0, (14 * before + 12 * below + 4 * above - 8 * under + 5) // 11)


def count_tables(levels: int) -> list[Table]:
    """A table for each context: at first a number is half as likely for each half level it is from the expected."""
    contexts = range(30 * levels // 11 + 2)
    rows = [[max(1, 1024 >> min(10, abs(2 * n - context))) for n in range(levels + 1)] for context in contexts]
    rows[0] = [1024, *([8] * levels)]  # where nothing is around, there is hardly ever anything
    return [Table(row) for row in rows]
