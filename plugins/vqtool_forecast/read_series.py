"""From a user's file to time series: which columns they are, each on its calendar, gaps refused or filled if asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool.files import cell_text, missing_file
from vqtool_forecast import covariates, frequency, outliers, rows_as_series, times
from vqtool_forecast.columns import ROWS, ReadOptions, find_columns, series_columns
from vqtool_forecast.numbers import read_numbers, series_values
from vqtool_forecast.read_table import Table, about_file, kind_of, read_table
from vqtool_forecast.time_columns import listed, without_footer
from vqtool_forecast.time_series import WARNING, TimeSeries

if TYPE_CHECKING:
    import pandas as pd

MOST_LEFT_OUT = 0.75  # of the series of a file
TRIES = 10  # series whose stamps are asked for the frequency
FILLING = "--fill ffill or --fill interp (in a recipe: fill under [data]) fills them"


class Reading(NamedTuple):
    """What was read: the series, the step of their calendar, and what was assumed or left out."""

    series: list[TimeSeries]
    freq: str
    notes: list[str]


def read_series(path: Path, options: ReadOptions, cutoff: str | None = None) -> Reading:
    """Every series of a file, up to and with `cutoff`, on one calendar; its frequency; what was assumed or left out.

    By default the cutoff is `options.until`. A series that is broken is left out with a note, unless it was asked for
    or is the only one.
    """
    cutoff = cutoff or options.until or None
    if not path.is_file():
        raise missing_file(path)
    notes: list[str] = []
    with about_file(path):
        if kind_of(path) == ".tsf":
            if options.covariates:
                raise VqtoolError("a .tsf file has no columns for `known` and `observed`", hint="leave them out")
            series = rows_as_series.from_monash(path, options, notes)
        else:
            table = read_table(path, notes, text=options.text, encoding=options.encoding, header=options.header,
                               counted=options.time == ROWS)  # fmt: skip
            table = replace(table, frame=without_footer(table.frame, notes))
            covariates.check_columns(table.frame, options)
            found = rows_as_series.from_table(table.frame, options, notes) if not options.covariates else None
            series = series_of(table, options, cutoff, notes) if found is None else found
        series, freq = on_one_calendar(tidied(up_to(cutoff, series), options, notes), options, notes)
    filled = sum(int((~one.measured).sum()) for one in series)
    if filled:
        notes.append(f"{filled} missing values filled ({options.fill})")
    notes += outliers.warnings(series)
    return Reading(series, freq, notes)


def tidied(series: list[TimeSeries], options: ReadOptions, notes: list[str]) -> list[TimeSeries]:
    """The series sorted, and with one row for each time, where that was asked for."""
    if not options.sort and options.repeated == "none":
        return series
    found, joined = [], 0
    for one in series:
        order = one.stamps.argsort(kind="stable") if options.sort else np.arange(len(one.stamps))
        one = one.only(order)
        if options.repeated != "none" and not one.stamps.is_unique:
            import pandas as pd

            rows = pd.DataFrame({"value": one.values, "row": one.rows}).groupby(one.stamps, sort=False)
            how = {"min_count": 1} if options.repeated == "sum" else {}
            values = getattr(rows["value"], options.repeated)(**how)
            joined += len(one.rows) - len(values)
            one = replace(one, stamps=values.index, values=values.to_numpy(), rows=rows["row"].first().to_numpy())
        found.append(one)
    notes += [f"{joined} rows of times that were there already joined ({options.repeated})"] if joined else []
    notes += ["rows sorted by time"] if options.sort else []
    return found


def up_to(cutoff: str | None, series: list[TimeSeries]) -> list[TimeSeries]:
    """What was known at the cutoff."""
    if cutoff is None:
        return series
    found = [one.only(times.until(cutoff, one.stamps)) for one in series]
    if not any(len(one.rows) for one in found):
        raise VqtoolError(f"no row is as early as the cutoff {cutoff}: the first is of {series[0].stamps.min()}")
    return [one for one in found if len(one.rows)]


def on_one_calendar(series: list[TimeSeries], options: ReadOptions, notes: list[str]) -> tuple[list[TimeSeries], str]:
    """The series, sorted, on the calendar that they share; those that do not fit are left out."""
    left_out: list[tuple[str, VqtoolError]] = []
    series = _that_work(_in_order(series, notes), check_order, options, left_out)
    series = _dated_by_months(series, options, notes)
    freq = common_frequency(series, options, notes)
    grids: dict[tuple[Any, Any], pd.Index] = {}  # which most series share

    def placed(one: TimeSeries) -> TimeSeries:
        one = covariates.without_future(one) if options.covariates else one
        end = (one.stamps[0], one.stamps[-1])
        if end not in grids:
            grids[end] = frequency.between(*end, freq)
        one = on_calendar(*without_end(one, grids[end], options.leave_out), freq, options)
        return covariates.aligned(one, freq, options)

    series = _that_work(series, placed, options, left_out)
    if left_out:
        error = left_out[0][1]
        hint = f" ({error.hint})" if error.hint else ""
        notes.append(
            f"{WARNING}{len(left_out)} of {len(left_out) + len(series)} series left out: {error.message}{hint}"
        )
        if len(left_out) > 1:
            notes.append(f"also left out: {listed(name for name, _ in left_out[1:])}")
    return series, freq


def _that_work(
    series: list[TimeSeries],
    do: Callable[[TimeSeries], TimeSeries],
    options: ReadOptions,
    left_out: list[tuple[str, VqtoolError]],
) -> list[TimeSeries]:
    """What comes of those series that raise no error; the first error, if few work or all were asked for."""
    good, bad = [], []
    for one in series:
        try:
            good.append(do(one))
        except VqtoolError as error:
            if options.series:
                raise
            bad.append((one.id, error))
    if len(bad) > MOST_LEFT_OUT * len(series):  # rather a kind of file than a few broken series
        raise bad[0][1]
    left_out += bad
    return good


def _in_order(series: list[TimeSeries], notes: list[str]) -> list[TimeSeries]:
    """Series whose stamps descend, turned round."""
    down = [len(one.stamps) > 1 and one.stamps.is_monotonic_decreasing and one.stamps.is_unique for one in series]
    if any(down):
        notes.append(f"the rows of {sum(down)} series descend in time and are read from the last to the first")
    return [one.backwards() if turn else one for one, turn in zip(series, down, strict=True)]


def _dated_by_months(series: list[TimeSeries], options: ReadOptions, notes: list[str]) -> list[TimeSeries]:
    """One value a month or quarter on any day: stamped on the month's first day. Others stay as they are."""
    longest = max(series, key=lambda one: len(one.stamps))
    if options.freq or frequency.known(longest.stamps) or not frequency.is_monthly(longest.stamps):
        return series
    if not all(frequency.is_monthly(one.stamps, fewest=1) for one in series):
        return series
    notes.append(f"one value a month, stamped on days like {longest.stamps[0].date()}: dated on the month's first day")
    return [_on_first_days(one) for one in series]


def _on_first_days(one: TimeSeries) -> TimeSeries:
    """Dated on the first days of its months, with what stands beside it."""
    both = one.covariates and replace(one.covariates, stamps=frequency.month_begins(one.covariates.stamps))
    return replace(one, stamps=frequency.month_begins(one.stamps), covariates=both)


def series_of(read: Table, options: ReadOptions, cutoff: str | None, notes: list[str]) -> list[TimeSeries]:
    """Every series of a table as it stands there, up to and with `cutoff`."""
    table, columns = find_columns(read.frame, options, notes)
    empty = (
        table.isna().all(axis=1).to_numpy() if table[columns.time].isna().any() else np.zeros(len(table), dtype=bool)
    )
    if empty.any():
        notes.append(f"{int(empty.sum())} empty rows left out")
    kept = np.flatnonzero(~empty)
    times_read = table[columns.time].iloc[kept] if empty.any() else table[columns.time]
    stamps = times.parse(times_read, options.time_format, notes, in_zone=bool(options.timezone),
                         counted=options.freq.isdigit() or columns.time == ROWS)  # fmt: skip
    if not columns.long:
        names = _chosen(series_columns(table, columns.time, options, notes), options)
        places = [(name, name, kept) for name in names]
    else:
        used = (columns.id, columns.time, columns.target, *options.covariates)
        unused = [f"`{c}`" for c in table.columns if c not in used]
        if unused:
            notes.append(f"columns not used: {', '.join(unused[:5])}{', ...' if len(unused) > 5 else ''}")
        places = [(name, columns.target, at) for name, at in _rows_by_id(table[columns.id], options).items()]
    numbers = read_numbers(
        replace(read, frame=table),
        list(dict.fromkeys([c for _, c, _ in places] + [*options.covariates])),
        options.decimal,
        notes,
    )
    found, broken, before, own = [], [], 0, None
    order = np.cumsum(~empty) - 1  # the place of a row among those that are not empty
    for name, column, at in places:
        if own is None or columns.long:  # all columns of a wide file have the same stamps
            own = times.localised(stamps[order[at]], options.timezone)
            known = times.until(cutoff, own)
        before += len(at)
        if not known.any():
            notes.append(f"series `{name}` begins after the cutoff and is left out")
            continue
        rows = at[known]
        try:
            others = covariates.beside(numbers, options, at, own, name)
            found.append(TimeSeries(name, own[known], series_values(numbers, column, rows, name), rows + 1, others))
        except VqtoolError as error:
            if options.series or len(places) == 1:
                raise
            broken.append(error)
            before -= len(at)
    if broken and not found:
        raise broken[0]
    if not found:
        raise VqtoolError(f"no row is as early as the cutoff {cutoff}: the first is of {stamps.min()}")
    if broken:
        notes.append(f"{WARNING}{len(broken)} of {len(broken) + len(found)} series left out: {broken[0].message}")
    if cutoff is not None and before == sum(len(one.rows) for one in found):
        last = max(one.stamps[-1] for one in found)
        notes.append(f"no row is later than the cutoff {cutoff}: the last is of {last}")
    return found


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


def common_frequency(series: list[TimeSeries], options: ReadOptions, notes: list[str]) -> str:
    """The frequency given, or the one that the longest series keeps; that it was inferred is noted."""
    ranked = sorted(series, key=lambda one: -len(one.stamps))
    if options.freq:
        return frequency.given(options.freq, ranked[0].stamps)
    first: VqtoolError | None = None
    for one in ranked[:TRIES]:  # a longest series that is broken does not stop the rest
        try:
            freq = frequency.infer(one.stamps, f"series `{one.id}`")
        except VqtoolError as error:
            first = first or error
            continue
        notes.append(f"frequency `{freq}`, inferred from {len(one.stamps)} time stamps")
        return freq
    assert first is not None
    if zone := times.zone_like(ranked[0].stamps):
        first.hint = _in_zone(zone)
    raise first


def check_order(one: TimeSeries) -> TimeSeries:
    """The series, if its stamps rise strictly."""
    stamps, rows = one.stamps, one.rows
    if stamps.is_monotonic_increasing and stamps.is_unique:
        return one
    step = np.diff(stamps.asi8 if hasattr(stamps, "asi8") else stamps.to_numpy())
    back = np.flatnonzero(step < 0)
    if len(back) and (zone := times.zone_like(stamps)):
        at = int(back[0])
        raise VqtoolError(
            f"series `{one.id}`: the clock goes back: row {rows[at + 1]} ({stamps[at + 1]}) stands after {stamps[at]}",
            hint=_in_zone(zone),
        )
    if len(back):
        falls = "the stamps descend" if (step <= 0).all() else "the stamps are not sorted"
        at = int(back[0])
        raise VqtoolError(
            f"series `{one.id}`: {falls}: row {rows[at + 1]} ({stamps[at + 1]}) stands after {stamps[at]}",
            hint="-s data.sort=true sorts the rows by time",
        )
    at = int(np.flatnonzero(step == 0)[0])
    zone = times.zone_like(stamps)
    raise VqtoolError(
        f"series `{one.id}`: rows {rows[at]} and {rows[at + 1]} have the same time stamp {stamps[at]}",
        hint=_in_zone(zone) if zone else "-s data.repeated=mean takes their mean; or first, last, sum",
    )


def _in_zone(zone: str) -> str:
    """The hint for stamps on a local clock."""
    return f"a local clock over summer time: its time zone, as in -s data.timezone={zone}"


def without_end(one: TimeSeries, grid: pd.Index, rows: int) -> tuple[TimeSeries, pd.Index]:
    """A series and its calendar without the last `rows` stamps of that, before any gap is filled."""
    if not rows:
        return one, grid
    if rows >= len(grid):
        raise VqtoolError(f"series `{one.id}` has {len(grid)} rows, and {rows} at its end are to be left out")
    grid = grid[: len(grid) - rows]
    return one.only(one.stamps <= grid[-1]), grid


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
        return replace(one, stamps=grid)
    values, rows = np.zeros(len(grid)), np.zeros(len(grid), dtype=np.int64)
    values[place], rows[place] = one.values, np.where(missing, 0, one.rows)
    return _filled(replace(one, stamps=grid, values=values, rows=rows), options.fill)


def _gap(one: TimeSeries, grid: pd.Index, place: NDArray[np.intp]) -> VqtoolError:
    """The error for missing rows: how many, and where the first is."""
    at = int(np.flatnonzero(np.diff(place) > 1)[0])
    many = len(grid) - len(one.stamps)
    return VqtoolError(
        f"series `{one.id}`: {many} row{' is' if many == 1 else 's are'} missing; the first after row {one.rows[at]}: "
        f"{grid[place[at] + 1]} should follow {one.stamps[at]}",
        hint=_in_zone(zone) if (zone := times.zone_like(one.stamps)) else FILLING,
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
    return replace(one, stamps=one.stamps[first:], values=full, rows=one.rows[first:])
