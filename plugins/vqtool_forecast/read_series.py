"""From a user's file to time series: which columns they are, each on its calendar, gaps refused or filled if asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool.files import cell_text
from vqtool_forecast import frequency, times
from vqtool_forecast.read_table import about_file, read_table

if TYPE_CHECKING:
    import pandas as pd

SENTINELS = (-999.0, -9999.0, -99999.0)
TIME_NAMES = ("ds", "date", "datetime", "time", "timestamp")
FILLING = "--fill ffill or --fill interp (in a recipe: fill under [data]) fills them"
CHOOSE = 'choose the columns that are series: -s data.series=["..."]'


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a file: some of the options of the data kind `series`."""

    layout: Literal["auto", "long", "wide"] = "auto"
    id: str = "unique_id"
    time: str = ""  # of a long file `ds`, of a wide one its one column of dates
    target: str = "y"
    series: tuple[str, ...] = ()
    freq: str = ""
    time_format: str = ""
    timezone: str = ""
    fill: Literal["none", "ffill", "interp"] = "none"
    sentinels: tuple[float, ...] = SENTINELS


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """One series of a file."""

    id: str
    stamps: pd.Index  # [n]
    values: NDArray[np.float64]  # [n]
    rows: NDArray[np.int64]  # [n] the file's row of each value, from 1 on; 0: it was filled in

    @property
    def measured(self) -> NDArray[np.bool_]:
        """[n] false where a value was filled in."""
        return self.rows > 0

    @property
    def measured_values(self) -> NDArray[np.float64]:
        """[n] the values, NaN where one was filled in."""
        return np.where(self.measured, self.values, np.nan)


def read_series(path: Path, options: ReadOptions, cutoff: str | None = None) -> tuple[list[TimeSeries], str, list[str]]:
    """Every series of a file, up to and with `cutoff`, on one calendar; its frequency; what was assumed or left out."""
    if not path.is_file():
        raise VqtoolError(f"there is no file `{path}`")
    notes: list[str] = []
    with about_file(path):
        table = read_table(path, notes, text="" if options.layout == "wide" else options.id)
        series = series_of(table, options, cutoff, notes)
        for one in series:
            check_order(one)
        freq = common_frequency(series, options, notes)
        ends = [(one.stamps[0], one.stamps[-1]) for one in series]
        grids = {end: frequency.between(*end, freq) for end in dict.fromkeys(ends)}  # which most series share
        series = [on_calendar(one, grids[end], freq, options) for one, end in zip(series, ends, strict=True)]
    filled = sum(int((~one.measured).sum()) for one in series)
    if filled:
        notes.append(f"{filled} missing values filled ({options.fill})")
    return series, freq, notes


def series_of(table: pd.DataFrame, options: ReadOptions, cutoff: str | None, notes: list[str]) -> list[TimeSeries]:
    """Every series of a table as it stands there, up to and with `cutoff`."""
    layout, time = columns(table, options)
    stamps = times.parse(table[time], options.time_format, in_zone=bool(options.timezone))
    everything = np.arange(len(table))
    if layout == "wide":
        names = _chosen(_series_columns(table, time, options, notes), options)
        places = [(name, name, everything) for name in names]
    else:
        unused = [f"`{c}`" for c in table.columns if c not in (options.id, time, options.target)]
        if unused:
            notes.append(f"columns not used: {', '.join(unused[:5])}{', ...' if len(unused) > 5 else ''}")
        places = [(name, options.target, at) for name, at in _rows_by_id(table[options.id], options).items()]
    found, before, own = [], 0, None
    for name, column, at in places:
        if own is None or layout == "long":  # all columns of a wide file have the same stamps
            own = times.localised(stamps[at], options.timezone)
            known = times.until(cutoff, own)
        before += len(at)
        if known.any():
            rows = at[known]
            found.append(TimeSeries(name, own[known], _numbers(table[column].iloc[rows], rows + 1, name), rows + 1))
        else:
            notes.append(f"series `{name}` begins after the cutoff and is left out")
    if not found:
        raise VqtoolError(f"no row is as early as the cutoff {cutoff}: the first is of {stamps.min()}")
    if cutoff is not None and before == sum(len(one.rows) for one in found):
        last = max(one.stamps[-1] for one in found)
        notes.append(f"no row is later than the cutoff {cutoff}: the last is of {last}")
    return found


def columns(table: pd.DataFrame, options: ReadOptions) -> tuple[str, str]:
    """The layout (`long` or `wide`) and the name of the time column."""
    there = list(table.columns)
    wanted = (options.id, options.time or "ds", options.target)
    missing = [name for name in wanted if name not in there]
    if options.layout == "long" or (options.layout == "auto" and not missing):
        if missing:
            raise VqtoolError(
                f"a long file needs the column{'s' if len(missing) > 1 else ''} "
                f"{', '.join(f'`{name}`' for name in missing)}; it has {', '.join(f'`{c}`' for c in there)}",
                hint='name yours: -s data.id="..." -s data.time="..." -s data.target="..."',
            )
        return "long", wanted[1]
    if options.time and options.time not in there:
        raise VqtoolError(f"there is no column `{options.time}`; there are {', '.join(f'`{c}`' for c in there)}")
    return "wide", options.time or _time_column(table)


def _time_column(table: pd.DataFrame) -> str:
    """The one column of a wide file that does not hold numbers, or one that is named like a time."""
    numbers = set(table.select_dtypes("number"))
    texts = [c for c in table.columns if c not in numbers and not _is_flag(table[c])]
    named = [c for c in table.columns if c.lower() in TIME_NAMES]
    for found in (texts, named, [c for c in named if c in texts]):
        if len(found) == 1:
            return str(found[0])
    raise VqtoolError(
        f"which of the columns {', '.join(f'`{c}`' for c in texts or table.columns)} is the time?",
        hint='-s data.time="..."; of a long file also -s data.layout="long" -s data.id="..." -s data.target="..."',
    )


def _series_columns(table: pd.DataFrame, time: str, options: ReadOptions, notes: list[str]) -> list[str]:
    """The columns of a wide file that may be series: unless some are asked for, no id, no index and no flags."""
    there = [str(c) for c in table.columns if c != time]
    if options.series:
        return there
    if options.layout == "auto" and options.id in there:
        others = ", ".join(f"`{c}`" for c in table.columns if c != options.id)
        raise VqtoolError(
            f"`{options.id}` names the series of a long file, but which of {others} are its times and values?",
            hint=f'-s data.layout="long" -s data.time="{time}" -s data.target="..."; if it is a series: '
            '-s data.layout="wide"',
        )
    left_out = {c: "true or false" for c in there if _is_flag(table[c])}
    if "Unnamed: 0" in there:
        left_out["Unnamed: 0"] = "a column without a name, as of an index"
    notes += [f"`{name}` is not a series ({why}) and is left out" for name, why in left_out.items()]
    if len(left_out) == len(there):
        raise VqtoolError(
            f"no column is a series: {', '.join(f'`{c}`' for c in there)}",
            hint='choose those that are: -s data.series=["..."]',
        )
    return [name for name in there if name not in left_out]


def _is_flag(column: pd.Series) -> bool:
    """Whether a column holds true and false, and perhaps gaps."""
    from pandas.api.types import infer_dtype

    return bool(infer_dtype(column, skipna=True) == "boolean")


def _chosen(found: list[str], options: ReadOptions) -> list[str]:
    """The series asked for, in the file's order; all of them by default."""
    missing = [name for name in options.series if name not in found]
    if missing:
        raise VqtoolError(f"there is no series `{missing[0]}`; there are {', '.join(f'`{n}`' for n in found[:12])}")
    return [name for name in found if name in options.series] if options.series else found


def _rows_by_id(ids: pd.Series, options: ReadOptions) -> dict[str, NDArray[np.intp]]:
    """The rows of each series that is wanted, in a long file."""
    if bool(ids.isna().any()):
        raise VqtoolError(f"row {int(np.flatnonzero(ids.isna())[0]) + 1} has no `{options.id}`")
    code, found = times.as_text(ids).factorize()
    groups = np.split(code.argsort(kind="stable"), np.bincount(code).cumsum()[:-1])
    places = dict(zip((cell_text(str(name)) for name in found), groups, strict=True))
    return {name: places[name] for name in _chosen(list(places), options)}


def _numbers(column: pd.Series, rows: NDArray[np.int64], name: str) -> NDArray[np.float64]:
    """A column as float64; text that is not a number is an error that names its row. Infinities are missing values."""
    if column.dtype.kind in "mMc":
        what = {"m": "time differences", "M": "dates", "c": "complex numbers"}[column.dtype.kind]
        raise VqtoolError(f"series `{name}` holds {what}, not numbers", hint=CHOOSE)
    try:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        for place, value in enumerate(column.to_numpy()):
            try:
                float(value)
            except (ValueError, TypeError):
                raise VqtoolError(
                    f"series `{name}`: `{value}` in row {rows[place]} is not a number", hint=CHOOSE
                ) from None
        raise
    return np.where(np.isfinite(values), values, np.nan)


def common_frequency(series: list[TimeSeries], options: ReadOptions, notes: list[str]) -> str:
    """The frequency given, or the one that the longest series keeps; that it was inferred is noted."""
    longest = max(series, key=lambda one: len(one.stamps))
    if options.freq:
        return frequency.given(options.freq, longest.stamps)
    freq = frequency.infer(longest.stamps, f"series `{longest.id}`")
    notes.append(f"frequency `{freq}`, inferred from {len(longest.stamps)} time stamps")
    return freq


def check_order(one: TimeSeries) -> None:
    """Stamps must rise strictly."""
    stamps, rows = one.stamps, one.rows
    if stamps.is_monotonic_increasing and stamps.is_unique:
        return
    step = np.diff(stamps.asi8 if hasattr(stamps, "asi8") else stamps.to_numpy())
    back = np.flatnonzero(step < 0)
    if len(back):
        falls = "the stamps descend" if (step <= 0).all() else "the stamps are not sorted"
        at = int(back[0])
        raise VqtoolError(
            f"series `{one.id}`: {falls}: row {rows[at + 1]} ({stamps[at + 1]}) stands after {stamps[at]}",
            hint="sort the file by time, the earliest row first",
        )
    at = int(np.flatnonzero(step == 0)[0])
    raise VqtoolError(
        f"series `{one.id}`: rows {rows[at]} and {rows[at + 1]} have the same time stamp {stamps[at]}",
        hint="drop one of them, or sum them; of a long file with several series, name the column of ids",
    )


def on_calendar(one: TimeSeries, grid: pd.Index, freq: str, options: ReadOptions) -> TimeSeries:
    """The series with a value at every stamp of `grid`, the calendar between its first stamp and its last."""
    missing = np.isnan(one.values) | np.isin(one.values, options.sentinels)
    if len(grid) == len(one.stamps) and (grid == one.stamps).all():
        place = np.arange(len(grid))
    else:
        place = grid.get_indexer(one.stamps)
        if (place < 0).any():
            off = int(np.flatnonzero(place < 0)[0])
            raise VqtoolError(
                f"series `{one.id}`: row {one.rows[off]} ({one.stamps[off]}) is not on the calendar `{freq}` that "
                f"begins at {one.stamps[0]}",
                hint="another --freq, or repair the stamp",
            )
    if options.fill == "none":
        if len(grid) > len(place):
            raise _gap(one, grid, place)
        if missing.any():
            raise _missing(one, missing)
        return TimeSeries(one.id, grid, one.values, one.rows)
    values, rows = np.zeros(len(grid)), np.zeros(len(grid), dtype=np.int64)
    values[place], rows[place] = one.values, np.where(missing, 0, one.rows)
    return _filled(TimeSeries(one.id, grid, values, rows), options.fill)


def _gap(one: TimeSeries, grid: pd.Index, place: NDArray[np.intp]) -> VqtoolError:
    """The error for missing rows: how many, and where the first is."""
    at = int(np.flatnonzero(np.diff(place) > 1)[0])
    many = len(grid) - len(one.stamps)
    return VqtoolError(
        f"series `{one.id}`: {many} row{' is' if many == 1 else 's are'} missing; the first after row {one.rows[at]}: "
        f"{grid[place[at] + 1]} should follow {one.stamps[at]}",
        hint=FILLING,
    )


def _missing(one: TimeSeries, missing: NDArray[np.bool_]) -> VqtoolError:
    """The error for a missing value or a sentinel; names the first."""
    at = int(np.flatnonzero(missing)[0])
    value, many = one.values[at], int(missing.sum())
    if np.isnan(value):
        what, hint = "has no value", FILLING
    else:
        what = f"is {value:g}, which stands for a missing value"
        hint = FILLING + "; if it is a real one: -s data.sentinels=[]"
    more = f" ({many} such rows)" if many > 1 else ""
    return VqtoolError(f"series `{one.id}`: row {one.rows[at]} ({one.stamps[at]}) {what}{more}", hint=hint)


def _filled(one: TimeSeries, fill: str) -> TimeSeries:
    """Gaps filled with the last measured value, or on a straight line to the next; a gap at the start is dropped."""
    if not one.measured.any():
        raise VqtoolError(f"series `{one.id}` has no value at all")
    places = np.flatnonzero(one.measured)
    first, n = places[0], len(one.rows)
    if n - first > 2 * len(places):
        raise VqtoolError(
            f"series `{one.id}` has {len(places)} values on {n - first} stamps from {one.stamps[first]} to "
            f"{one.stamps[-1]}: most would be filled in",
            hint='another --freq, or the format of its times, e.g. -s data.time_format="%Y%m%d"',
        )
    if fill == "ffill":
        full = one.values[places[np.cumsum(one.measured[first:]) - 1]]
    else:
        full = np.interp(np.arange(first, n), places, one.values[places])  # level after the last measured value
    return TimeSeries(one.id, one.stamps[first:], full, one.rows[first:])
