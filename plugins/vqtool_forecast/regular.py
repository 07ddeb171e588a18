"""A series on its calendar: disorder, gaps and missing values are errors that name the row, or filled if asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool_forecast import frequency
from vqtool_forecast.frame import Raw, Reading, read

if TYPE_CHECKING:
    import pandas as pd

FILLING = "--fill ffill or --fill interp (in a recipe: fill under [data]) fills them"


@dataclass(frozen=True, slots=True)
class Regular:
    """A series with a value at every stamp of its calendar."""

    id: str
    stamps: pd.Index  # [n]
    values: NDArray[np.float64]  # [n]
    known: NDArray[np.bool_]  # [n] false where a value was filled in

    @property
    def measured(self) -> NDArray[np.float64]:
        """[n] NaN where a value was filled in."""
        return np.where(self.known, self.values, np.nan)


def load(path: Path, how: Reading, cutoff: str | None = None) -> tuple[list[Regular], str, list[str]]:
    """Every series of a file on one calendar, that calendar's frequency, and what is to be said about it."""
    notes: list[str] = []
    raws = read(path, how, cutoff, notes)
    for raw in raws:
        check_order(raw, path)
    freq = common_frequency(raws, how, notes)
    series = [on_calendar(raw, freq, how, path) for raw in raws]
    filled = sum(int((~one.known).sum()) for one in series)
    if filled:
        notes.append(f"{filled} missing values filled ({how.fill})")
    return series, freq, notes


def common_frequency(raws: Sequence[Raw], how: Reading, notes: list[str]) -> str:
    """The frequency given, or the one that the longest series keeps; that it was inferred is said aloud."""
    longest = max(raws, key=lambda raw: len(raw.stamps))
    if how.freq:
        return frequency.given(how.freq, longest.stamps)
    freq = frequency.infer(longest.stamps, f"series `{longest.id}`")
    notes.append(f"frequency `{freq}`, inferred from {len(longest.stamps)} time stamps")
    return freq


def check_order(raw: Raw, path: Path) -> None:
    """Stamps must rise strictly."""
    stamps = raw.stamps
    if stamps.is_monotonic_increasing and stamps.is_unique:
        return
    numbers = stamps.asi8 if hasattr(stamps, "asi8") else stamps.to_numpy()
    step = np.diff(numbers)
    back = np.flatnonzero(step < 0)
    if len(back):
        falls = "the stamps descend" if (step <= 0).all() else "the stamps are not sorted"
        at = int(back[0])
        raise VqtoolError(
            f"series `{raw.id}`: {falls}: row {raw.rows[at + 1]} ({stamps[at + 1]}) stands after {stamps[at]}",
            hint="sort the file by time, the earliest row first",
            where=str(path),
        )
    at = int(np.flatnonzero(step == 0)[0])
    raise VqtoolError(
        f"series `{raw.id}`: rows {raw.rows[at]} and {raw.rows[at + 1]} have the same time stamp {stamps[at]}",
        hint="drop one of them, or sum them; of a long file with several series, name the column of ids",
        where=str(path),
    )


def on_calendar(raw: Raw, freq: str, how: Reading, path: Path) -> Regular:
    """One series on the full calendar between its first and its last stamp."""
    grid = frequency.between(raw.stamps[0], raw.stamps[-1], freq)
    missing = np.isnan(raw.values) | np.isin(raw.values, how.sentinels)
    if len(grid) == len(raw.stamps) and (grid == raw.stamps).all():
        values = raw.values
    else:
        place = grid.get_indexer(raw.stamps)
        if (place < 0).any():
            off = int(np.flatnonzero(place < 0)[0])
            raise VqtoolError(
                f"series `{raw.id}`: row {raw.rows[off]} ({raw.stamps[off]}) is not on the calendar `{freq}` that "
                f"begins at {raw.stamps[0]}",
                hint="another --freq, or repair the stamp",
                where=str(path),
            )
        if how.fill == "none":
            raise _gap(raw, grid, place, path)
        values, absent = np.full(len(grid), np.nan), np.ones(len(grid), dtype=bool)
        values[place], absent[place] = raw.values, missing
        missing = absent
    if not missing.any():
        return Regular(raw.id, grid, values, ~missing)
    if how.fill == "none":
        raise _missing(raw, missing, path)
    return _filled(raw.id, grid, values, ~missing, how.fill, path)


def _gap(raw: Raw, grid: pd.Index, place: NDArray[np.intp], path: Path) -> VqtoolError:
    """The error for missing rows: how many, and where the first is."""
    at = int(np.flatnonzero(np.diff(place) > 1)[0])
    many = len(grid) - len(raw.stamps)
    return VqtoolError(
        f"series `{raw.id}`: {many} row{' is' if many == 1 else 's are'} missing; the first after row {raw.rows[at]}: "
        f"{grid[place[at] + 1]} should follow {raw.stamps[at]}",
        hint=FILLING,
        where=str(path),
    )


def _missing(raw: Raw, missing: NDArray[np.bool_], path: Path) -> VqtoolError:
    """The error for a missing value or a sentinel; tells the first."""
    at = int(np.flatnonzero(missing)[0])
    value, many = raw.values[at], int(missing.sum())
    if np.isnan(value):
        what, hint = "has no value", FILLING
    else:
        what = f"is {value:g}, which stands for a missing value"
        hint = FILLING + "; if it is a real one: -s data.sentinels=[]"
    more = f" ({many} such rows)" if many > 1 else ""
    return VqtoolError(
        f"series `{raw.id}`: row {raw.rows[at]} ({raw.stamps[at]}) {what}{more}", hint=hint, where=str(path)
    )


def _filled(
    name: str, grid: pd.Index, values: NDArray[np.float64], known: NDArray[np.bool_], fill: str, path: Path
) -> Regular:
    """Gaps filled with the last known value, or on a straight line to the next; what precedes the first is dropped."""
    if not known.any():
        raise VqtoolError(f"series `{name}` has no value at all", where=str(path))
    first = int(np.flatnonzero(known)[0])
    grid, values, known = grid[first:], values[first:], known[first:]
    places = np.flatnonzero(known)
    if fill == "ffill":
        full = values[places[np.cumsum(known) - 1]]
    else:
        full = np.interp(np.arange(len(values)), places, values[places])  # after the last known value it stays level
    return Regular(name, grid, full, known)


def neighbours(known: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row the last measured one up to it, and the first from it on; the length where none follows."""
    n, rows = len(known), np.arange(len(known))
    last = np.maximum.accumulate(np.where(known, rows, 0))
    following = np.minimum.accumulate(np.where(known, rows, n)[::-1])[::-1]
    return last, following.copy()  # torch takes no reversed view
