"""Files with a row for each series: as of the M4 and M5 competitions, of the World Bank, and Monash's `.tsf`."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqtool.errors import VqtoolError
from vqtool_forecast.columns import ReadOptions
from vqtool_forecast.dialect import CLOCK, DATE
from vqtool_forecast.frequency import known
from vqtool_forecast.numbers import is_text
from vqtool_forecast.read_table import unpacked
from vqtool_forecast.time_columns import MONTH_NAMES, is_dates, listed
from vqtool_forecast.time_forms import YEARS, from_text, readings
from vqtool_forecast.time_series import TimeSeries

if TYPE_CHECKING:
    import pandas as pd

HOUR = re.compile(r"(?:h|hr|he|hour|hora|stunde|period)?[ _]?(\d{1,2})", re.IGNORECASE)
FEWEST = 4  # columns of values that make a row a series
MONASH = {"yearly": "Y", "quarterly": "Q", "monthly": "M", "weekly": "W", "daily": "D", "hourly": "h",
          "half_hourly": "30min", "10_minutes": "10min", "minutely": "min", "4_seconds": "4s"}  # fmt: skip


def from_table(table: pd.DataFrame, options: ReadOptions, notes: list[str]) -> list[TimeSeries] | None:
    """The series in the rows of a table whose columns are times; None where it is not such a table."""
    import pandas as pd

    if options.layout != "auto" or options.time:
        return None
    names = [str(c) for c in table.columns]
    if (one := _months(table, names, notes) or _hours(table, names, notes)) is not None:
        return [one]
    first = next((i for i in range(1, len(names)) if (times := _times(names[i:])) is not None), None)
    if (
        first is None
        or first > 8
        or len(names) - first < FEWEST
        or not all(table[c].dtype.kind in "iufb" for c in names[first:])
    ):
        return None
    ids = [c for c in names[:first] if is_text(table[c]) or c.lower() in ("id", "unique_id", "item_id")]
    one_each = [c for c in ids if table[c].is_unique and bool(table[c].notna().all()) and not is_dates(table[c])]
    if not one_each and len(ids) > 1:  # as a province and a country
        table = table.assign(**{"/".join(ids): table[ids].fillna("").astype(str).agg("/".join, axis=1).str.strip("/")})
        one_each = ["/".join(ids)] if table["/".join(ids)].is_unique else []
    if not one_each:
        return None
    asked = options.id if options.id in one_each else one_each[0]
    stamps: Any = times
    values = table[names[first:]].to_numpy(dtype=np.float64)
    found, empty = [], 0
    for row, (name, given) in enumerate(zip(table[asked].astype(str), values, strict=True), 1):
        there = np.flatnonzero(np.isfinite(given))
        if not len(there):
            empty += 1
            continue
        inside = slice(there[0], there[-1] + 1)
        n = inside.stop - inside.start
        found.append(TimeSeries(name, stamps[inside], given[inside], np.full(n, row, dtype=np.int64)))
    notes.append(f"read as a row for each series: {len(found)} of them, names in `{asked}`, times in the header "
                 f"from `{names[first]}` to `{names[-1]}`")  # fmt: skip
    notes += [f"{empty} rows without values left out"] if empty else []
    notes += [f"columns not used: {listed(c for c in names[:first] if c != asked)}"] if first > 1 else []
    assert isinstance(stamps, pd.Index)
    return _wanted(found, options)


def _times(names: list[str]) -> pd.Index | None:
    """Names like 1960, d_1 or 2020-01-31 as times; None where they do not all follow each other."""
    import pandas as pd

    if len(names) < FEWEST:
        return None
    if all(DATE.fullmatch(name) and name[:4].isdigit() for name in names):
        return pd.DatetimeIndex(pd.to_datetime(names, format="ISO8601"))
    if all(re.fullmatch(r"\d{1,2}/\d{1,2}/\d{2,4}", name) for name in names):  # as of Johns Hopkins
        text = pd.Series(names)
        forms = readings(text, [f"{order}/%{'y' if len(names[0]) < 9 else 'Y'}" for order in ("%m/%d", "%d/%m")])
        return pd.DatetimeIndex(pd.to_datetime(text, format=forms[0])) if len(forms) == 1 else None
    periods, _ = from_text(pd.Series(names))
    if periods is not None and known(periods):
        return periods
    parts = [re.fullmatch(r"([A-Za-z_]{0,12})(\d+)(?: \[YR\d+\])?", name) for name in names]
    if not all(parts) or len({part[1] for part in parts if part}) != 1:
        return None
    numbers = np.array([int(part[2]) for part in parts if part])
    if not (np.diff(numbers) == 1).all():
        return None
    if not parts[0][1] and YEARS[0] <= numbers[0] and numbers[-1] <= YEARS[1]:  # type: ignore[index]  # all parts matched, see above
        return pd.DatetimeIndex(pd.to_datetime(pd.Series(numbers).astype(str), format="%Y"))
    return pd.Index(numbers) if parts[0][1] else None  # type: ignore[index]  # all parts matched, see above


def _months(table: pd.DataFrame, names: list[str], notes: list[str]) -> TimeSeries | None:
    """A table of a year and its twelve months in each row, as one series."""
    import pandas as pd

    begin = next((i for i in (1, 2) if tuple(n.lower()[:3] for n in names[i : i + 12]) == MONTH_NAMES), None)
    if (
        begin is None
        or not _are_numbers(table, names[begin : begin + 12])
        or table[names[begin - 1]].dtype.kind not in "iu"
    ):
        return None
    years = table[names[begin - 1]].to_numpy()
    if not ((np.diff(years) == 1).all() and YEARS[0] <= years[0] and years[-1] <= YEARS[1]):
        return None
    stamps = pd.to_datetime([f"{year}-{month:02d}" for year in years for month in range(1, 13)], format="%Y-%m")
    if rest := [*names[: begin - 1], *names[begin + 12 :]]:
        notes.append(f"columns not used: {listed(rest)}")
    return _flat(table, names[begin : begin + 12], stamps, "a row for each year, a column for each month", notes)


def _hours(table: pd.DataFrame, names: list[str], notes: list[str]) -> TimeSeries | None:
    """A table of a date and the hours (or halves or quarters of one) of its day in each row, as one series."""
    import pandas as pd

    from vqtool_forecast.times import parse

    many = next((n for n in (24, 48, 96) if len(names) > n), None)
    begin = len(names) - many if many else 0
    if many is None or not 1 <= begin <= 4 or not _are_numbers(table, names[begin:]):
        return None
    dates = [c for c in names[:begin] if is_dates(table[c]) and table[c].is_unique]
    hours = [HOUR.fullmatch(name) for name in names[begin:]]
    numbers = [int(hour[1]) for hour in hours if hour]
    counted = numbers in (list(range(many)), list(range(1, many + 1)))
    if len(dates) != 1 or not (counted or all(CLOCK.fullmatch(name) for name in names[begin:])):
        return None
    days = parse(table[dates[0]], "", notes, in_zone=False)
    step = pd.Timedelta(days=1) / many
    stamps = pd.DatetimeIndex(np.repeat(days.to_numpy(), many)) + np.tile(np.arange(many), len(days)) * step
    return _flat(table, names[begin:], stamps, f"a row for each day, {many} columns from its midnight on", notes)


def _are_numbers(table: pd.DataFrame, names: list[str]) -> bool:
    return all(table[c].dtype.kind in "iuf" for c in names)


def _flat(table: pd.DataFrame, names: list[str], stamps: pd.DatetimeIndex, what: str, notes: list[str]) -> TimeSeries:
    """Rows one behind the other, without what is missing before the first and after the last value."""
    flat = table[names].to_numpy(dtype=np.float64).flatten()
    known = np.flatnonzero(np.isfinite(flat))
    inside = slice(known[0], known[-1] + 1) if len(known) else slice(0, 0)
    rows = np.repeat(np.arange(1, len(table) + 1), len(names))
    notes.append(f"read as {what}: one series of {inside.stop - inside.start} values")
    return TimeSeries("value", stamps[inside], flat[inside], rows[inside])


def from_monash(path: Path, options: ReadOptions, notes: list[str]) -> list[TimeSeries]:
    """The series of a `.tsf` file: `name:start:values` in each row, their frequency in the header."""
    import pandas as pd

    source = unpacked(path)
    content = source.getvalue() if isinstance(source, io.BytesIO) else source.read_bytes()
    lines = content.decode(options.encoding or "utf-8", "replace").splitlines()
    attributes, freq, begin = [], "", None
    for place, line in enumerate(lines):
        words = line.strip().split()
        if words[:1] == ["@attribute"] and len(words) > 2:
            attributes.append((words[1], words[2]))
        elif words[:1] == ["@frequency"]:
            freq = words[1]
        elif words[:1] == ["@data"]:
            begin = place + 1
            break
    if begin is None or begin == len(lines):
        raise VqtoolError(f"`{path.name}` has no rows after `@data`", hint="a Monash .tsf file: it may be cut short")
    found = []
    for row, line in enumerate(lines[begin:], 1):
        cells = line.strip().split(":")
        if line.strip() == "" or line.startswith("#"):
            continue
        if len(cells) != len(attributes) + 1:
            raise VqtoolError(f"row {row} has {len(cells) - 1} attributes; the header names {len(attributes)}")
        named = {name: cell for (name, _), cell in zip(attributes, cells, strict=False)}
        start = next((cell for (_, kind), cell in zip(attributes, cells, strict=False) if kind == "date"), None)
        try:
            values = np.array([np.nan if v.strip() in ("?", "") else float(v) for v in cells[-1].split(",")])
        except ValueError as error:
            raise VqtoolError(f"row {row}: {error}") from error
        if start is None or freq not in MONASH:
            stamps = pd.Index(np.arange(1, len(values) + 1))
        else:
            stamps = _monash_stamps(start, MONASH[freq], len(values), row)
        name = named.get("series_name") or next(iter(named.values()), f"T{row}")
        found.append(TimeSeries(name, stamps, values, np.full(len(values), row, dtype=np.int64)))
    notes.append(f"Monash file: {len(found)} series, {freq or 'no frequency'}")
    return _wanted(found, options)


def _monash_stamps(start: str, freq: str, n: int, row: int) -> pd.Index:
    """The stamps of a row from its start on; the day of a month or a quarter does not count."""
    import pandas as pd

    stamp = pd.to_datetime(start, format="%Y-%m-%d %H-%M-%S", errors="coerce")
    stamp = pd.to_datetime(start, errors="coerce") if stamp is pd.NaT else stamp
    if stamp is pd.NaT:
        raise VqtoolError(f"row {row}: `{start}` is not a time like 2020-01-31 00-00-00")
    if freq in "YQM":
        stamp = stamp.replace(day=1)
        freq = {"Y": "YS-" + stamp.strftime("%b").upper(), "Q": "QS-" + stamp.strftime("%b").upper(), "M": "MS"}[freq]
    return pd.date_range(stamp, periods=n, freq="W-" + stamp.strftime("%a").upper() if freq == "W" else freq)


def _wanted(found: list[TimeSeries], options: ReadOptions) -> list[TimeSeries]:
    """The series asked for."""
    there = [one.id for one in found]
    if missing := [name for name in options.series if name not in there]:
        raise VqtoolError(f"there is no series `{missing[0]}`; there are {listed(there)}")
    return [one for one in found if not options.series or one.id in options.series]
