"""Windows over series: a flat table of values, and rows that cut history and future out of it when asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import MASK, Batch, DataSpec, UnfitError
from vqtool.errors import VqtoolError
from vqtool_forecast.frequency import number, season_of
from vqtool_forecast.time_series import TimeSeries

SPLITS = ("train", "valid", "test")
CHUNK = 2048  # windows that `SeriesRows.windows` gives at once


@dataclass(frozen=True)
class Beside:
    """Columns beside all series, end to end, scaled: row r of series s is `values[offset[s] + r]`.

    Their rows go on after the last value of a series. The first `known` columns are known ahead, the others never read
    at or after the row that a future begins with.
    """

    values: Tensor  # [N, K] float32
    offset: Tensor  # [S] long
    length: Tensor  # [S] long
    known: int

    def fields(self, series: Tensor, at: Tensor, lookback: int, steps: int) -> Batch:
        """`known` [..., K, lookback + steps] and `observed` [..., K, lookback] around row `at`; [...] as `at`.

        Before the first row and after the last one these stand for others.
        """
        row = at[..., None] + torch.arange(-lookback, steps)
        inside = row.clamp_min(0).minimum(self.length[series][..., None] - 1)
        found = self.values[self.offset[series][..., None] + inside].transpose(-1, -2)
        both = {"known": found[..., : self.known, :], "observed": found[..., self.known :, :lookback]}
        return {name: value for name, value in both.items() if value.shape[-2]}


@dataclass(frozen=True)
class SeriesTable:
    """All series end to end. Row r of series s is `values[offset[s] + r]`.

    `borders` are the rows at which the splits begin, and the end: the *future* of a window lies in its split, its
    history may reach back over the border. `last_known` and `next_known` [N] point to the neighbouring measured values
    where gaps were filled by interpolation: a window must not see a filled value that depends on one after its history.
    """

    values: Tensor  # [N] float32, scaled (float64 and unscaled for a user's file)
    offset: Tensor  # [S] long
    length: Tensor  # [S] long
    borders: Tensor | None = None  # [4, S] long
    last_known: Tensor | None = None  # [N] long
    next_known: Tensor | None = None  # [N] long
    first: Tensor | None = None  # [S] long, the number of row 0 on the calendar (`frequency.number`); None: unknown
    season: int = 1
    beside: Beside | None = None

    @property
    def series(self) -> int:
        """How many series there are."""
        return len(self.offset)

    def history(self, series: Tensor, at: Tensor, lookback: int) -> Tensor:
        """The `lookback` values before row `at` of each series, as they were known then: [..., lookback].

        Where the series begins later, its first value stands for those before.
        """
        cut = (self.offset[series] + at)[..., None]
        where = (cut + torch.arange(-lookback, 0)).maximum(self.offset[series][..., None])
        if self.last_known is not None and self.next_known is not None:
            where = torch.where(self.next_known[where] >= cut, self.last_known[where], where)
        return self.values[where]

    def known_before(self, at: Tensor) -> Tensor:
        """All `values`, those before row `at` [S] of their series as they were known then."""
        if self.last_known is None or self.next_known is None:
            return self.values
        row, cut = torch.arange(len(self.values)), (self.offset + at).repeat_interleave(self.length)
        return self.values[torch.where((row < cut) & (self.next_known >= cut), self.last_known, row)]

    def phase(self, series: Tensor, at: Tensor) -> Tensor:
        """The place in the season of row `at` of each series, from its time stamp; -1 where that is not known."""
        return torch.full_like(at, -1) if self.first is None else (self.first[series] + at) % self.season

    def future(self, series: Tensor, at: Tensor, horizon: int, end: Tensor) -> Tensor:
        """The `horizon` values from row `at` on, NaN from row `end` on: [..., horizon]."""
        row = at[..., None] + torch.arange(horizon)
        inside = row < end[..., None]
        where = (self.offset[series][..., None] + row).clamp_max(len(self.values) - 1)
        return self.values[where].masked_fill(~inside, torch.nan)

    def measured(self, series: Tensor, at: Tensor, horizon: int) -> Tensor:
        """Which of the `horizon` values from row `at` on were measured, not filled in: [..., horizon]."""
        where = ((self.offset[series] + at)[..., None] + torch.arange(horizon)).clamp_max(len(self.values) - 1)
        return torch.ones_like(where, dtype=torch.bool) if self.last_known is None else self.last_known[where] == where

    def split(self, name: str) -> Tensor:
        """[2, S] where a split's rows begin and end in each series."""
        assert self.borders is not None
        first = SPLITS.index(name)
        return self.borders[first : first + 2]

    def starts(self, split: str, series: int, lookback: int, room: int, stride: int = 1) -> Tensor:
        """Every `stride`-th row at which a future of `room` steps fits into a split and a history before it."""
        begin, end = self.split(split)[:, series].tolist()
        return torch.arange(max(begin, lookback), max(begin, lookback, end - room + 1), stride)


class SeriesRows:
    """The windows of one split; nothing is copied until a batch is asked for.

    A row is a window of one series (`joint` false), series after series, or of all series at once. Unless `whole`,
    windows of which only the shortest of `horizons` is inside the split count too: their `future` ends in NaN. With
    `shortest`, so do windows whose history reaches back to the begin of the series and has so many values at least; a
    field `mask` [B, lookback] says which are in the series.
    """

    def __init__(
        self,
        table: SeriesTable,
        split: str,
        *,
        lookback: int,
        horizons: tuple[int, ...],
        joint: bool = False,
        stride: int = 1,
        whole: bool = True,
        shortest: int | None = None,
    ) -> None:
        if shortest is not None and shortest > lookback:
            raise VqtoolError(f"`shortest` is {shortest}, and a history has {lookback} values", where="[data] shortest")
        self.table, self.split, self.joint = table, split, joint
        self.lookback, self.horizons, self.shortest = lookback, horizons, shortest
        room = max(horizons) if whole else min(horizons)
        least = lookback if shortest is None else shortest
        each = [table.starts(split, s, least, room, stride) for s in range(1 if joint else table.series)]
        self.at = torch.cat(each)  # [rows]
        self.of = torch.cat([torch.full_like(at, s) for s, at in enumerate(each)])  # [rows]

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, index: int) -> Batch:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> Batch:
        where = torch.as_tensor(indices, dtype=torch.long)
        at, series = self.at[where], self.of[where]
        rows = torch.arange(self.table.series).expand(len(at), -1) if self.joint else series[:, None]  # [B, C]
        cut = at[:, None].expand_as(rows)
        end = self.table.split(self.split)[1][rows]
        batch = {
            "x": self.table.history(rows, cut, self.lookback),
            "future": self.table.future(rows, cut, max(self.horizons), end),
            "at": at,
            "phase": self.table.phase(rows[:, 0], at),
        }
        if self.table.last_known is not None:
            batch["measured"] = self.table.measured(rows, cut, max(self.horizons))
        if self.table.beside is not None:
            batch |= self.table.beside.fields(rows, cut, self.lookback, max(self.horizons))
        if self.shortest is not None:
            batch[MASK] = at[:, None] + torch.arange(-self.lookback, 0) >= 0
        return batch if self.joint else batch | {"series": series}

    def windows(
        self, split: str, room: int, longest: int | None = None, *, blocks: int = 1
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
        """Every window of a split, of all series, a chunk of one series at a time.

        Gives histories [n, L], futures [n, `room`], each window's place among all series' seasons [n], and the number
        of its block where each series' windows are cut into `blocks` of time. With `longest`, only those windows in
        which `room` steps fit, but `longest` do not.
        """
        table = self.table
        for s in range(table.series):
            at = table.starts(split, s, self.lookback, room)
            end = table.split(split)[1, s]
            if longest is not None:
                at = at[at > int(end) - longest]
            for block, cut in enumerate(at.tensor_split(blocks)):
                for part in cut.split(CHUNK) if len(cut) else ():
                    one = torch.full_like(part, s)
                    place = s * table.season + table.phase(one, part)
                    x = table.history(one, part, self.lookback)
                    yield x, table.future(one, part, room, end.expand_as(part)), place, block


def table_of(
    series: Sequence[TimeSeries],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    freq: str,
    season: int,
    borders: Tensor | None = None,
    dtype: type = np.float32,
) -> SeriesTable:
    """All series end to end, scaled in float64 and kept as `dtype`."""
    length = torch.tensor([len(one.values) for one in series])
    offset = length.cumsum(0) - length
    scaled = [(one.values - m) / s for one, m, s in zip(series, mean, std, strict=True)]
    values = torch.from_numpy(np.concatenate(scaled).astype(dtype))
    begins = [one.stamps[0] for one in series]
    numbers = {stamp: number(stamp, freq) for stamp in set(begins)}
    first = torch.tensor([numbers[stamp] for stamp in begins])
    table = SeriesTable(values, offset, length, borders, first=first, season=season)
    known = [one.measured for one in series]
    if all(map(np.all, known)):
        return table
    both = [neighbours(each) for each in known]
    last, following = (
        torch.cat([torch.from_numpy(pair[i]) + begin for pair, begin in zip(both, offset, strict=True)]) for i in (0, 1)
    )
    return replace(table, last_known=last, next_known=following)


def beside_of(series: Sequence[TimeSeries], mean: NDArray[np.float64], std: NDArray[np.float64], known: int) -> Beside:
    """The covariates of all series, scaled by `mean` [S, K] and `std` [K]; what is missing counts as the mean."""
    each = [one.covariates for one in series]
    values = [(c.values - m) / std for c, m in zip(each, mean, strict=True) if c is not None]
    length = torch.tensor([len(one) for one in values])
    joined = torch.from_numpy(np.nan_to_num(np.concatenate(values)).astype(np.float32))
    return Beside(joined, length.cumsum(0) - length, length, known)


def neighbours(known: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row the last measured one up to it, and the first from it on; the length where none follows."""
    n, rows = len(known), np.arange(len(known))
    last = np.maximum.accumulate(np.where(known, rows, 0))
    following = np.minimum.accumulate(np.where(known, rows, n)[::-1])[::-1]
    return last, following.copy()  # torch does not take a reversed view


def split_rows(lengths: Sequence[int], freq: str, protocol: str, shares: Sequence[float]) -> Tensor:
    """[4, S] the rows of each series at which the splits begin, and its end.

    By `shares`, where what rounding leaves goes to validation and the last may be 0; or with the protocol `ltsf` 12, 4
    and 4 months of 30 days, as Informer (Zhou et al., AAAI 2021) and its successors have them.
    """
    if protocol == "ltsf":
        day = season_of(freq)
        if freq.lstrip("0123456789") not in ("h", "min") or day == 1:
            raise VqtoolError(
                f"the protocol `ltsf` is for steps of hours or minutes, not `{freq}`", hint='protocol = "shares"'
            )
        if min(lengths) < 20 * 30 * day:
            raise VqtoolError(
                f"the protocol `ltsf` needs {20 * 30 * day} rows of `{freq}`; a series has {min(lengths)}",
                hint='protocol = "shares"',
            )
        return torch.tensor([months * 30 * day for months in (0, 12, 16, 20)])[:, None].expand(-1, len(lengths))
    if min(shares[:2]) <= 0 or shares[2] < 0 or abs(sum(shares) - 1) > 1e-6:
        raise VqtoolError(f"`shares` are {list(shares)}; they must be positive and sum to 1", where="[data] shares")
    return torch.tensor([(0, int(n * shares[0]), n - int(n * shares[2]), n) for n in lengths]).T


def nonzero_std(mean: Tensor, std: Tensor) -> Tensor:
    """The deviation to scale by: of constant values their size, and 1 of zeros."""
    flat = std <= 1e-12 * mean.abs().clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where(flat, torch.where(mean == 0, 1.0, mean.abs()), std)


def require_future(spec: DataSpec, who: str) -> None:
    """Raise `UnfitError` where the data have no futures to forecast."""
    if "horizon" not in spec.metadata:
        raise UnfitError(f"{who} needs data with a field `future`, which these do not have", hint="data.kind=series")
