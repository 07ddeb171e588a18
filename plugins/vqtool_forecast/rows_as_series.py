"""Files with a row for each series: as of the M4 and M5 competitions, of the World Bank, and Monash's `.tsf`."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqtool.errors import VqtoolError
from vqtool_forecast.columns import MONTHS, ReadOptions, listed
from vqtool_forecast.dialect import DATE
from vqtool_forecast.numbers import is_text
from vqtool_forecast.read_table import unpacked
from vqtool_forecast.time_forms import YEARS
from vqtool_forecast.time_series import TimeSeries

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 4  # columns of values that make a row a series
MONASH = {"yearly": "Y", "quarterly": "Q", "monthly": "M", "weekly": "W", "daily": "D", "hourly": "h",
          "half_hourly": "30min", "10_minutes": "10min", "minutely": "min", "4_seconds": "4s"}  # fmt: skip


def from_table(table: pd.DataFrame, options: ReadOptions, notes: list[str]) -> list[TimeSeries] | None:
    """The series in the rows of a table whose columns are times; None where it is not such a table."""
    import pandas as pd

    if options.layout != "auto" or options.time:
        return None
    months = _months(table, notes)
    if months is not None:
        return months
    names = [str(c) for c in table.columns]
    first = next((i for i in range(1, len(names)) if (times := _times(names[i:])) is not None), None)
    if (
        first is None
        or first > 8
        or len(names) - first < FEWEST
        or not all(table[c].dtype.kind in "iufb" for c in names[first:])
    ):
        return None
    ids = [c for c in names[:first] if is_text(table[c]) or c.lower() in ("id", "unique_id", "item_id")]
    one_each = [c for c in ids if table[c].is_unique and bool(table[c].notna().all())]
    if not one_each:
        return None
    asked = options.id if options.id in one_each else one_each[0]
    stamps: Any = times
    values = table[names[first:]].to_numpy(dtype=np.float64)
    found, empty = [], 0
    for row, (name, given) in enumerate(zip(table[asked].astype(str), values, strict=True), 1):
        known = np.flatnonzero(np.isfinite(given))
        if not len(known):
            empty += 1
            continue
        inside = slice(known[0], known[-1] + 1)
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
    parts = [re.fullmatch(r"([A-Za-z_]{0,12})(\d+)(?: \[YR\d+\])?", name) for name in names]
    if not all(parts) or len({part[1] for part in parts if part}) != 1:
        return None
    numbers = np.array([int(part[2]) for part in parts if part])
    if not (np.diff(numbers) == 1).all():
        return None
    if not parts[0][1] and YEARS[0] <= numbers[0] and numbers[-1] <= YEARS[1]:  # type: ignore[index]  # all parts matched, see above
        return pd.DatetimeIndex(pd.to_datetime(pd.Series(numbers).astype(str), format="%Y"))
    return pd.Index(numbers) if parts[0][1] else None  # type: ignore[index]  # all parts matched, see above


def _months(table: pd.DataFrame, notes: list[str]) -> list[TimeSeries] | None:
    """A table of a year and its twelve months in each row, as one series."""
    import pandas as pd

    names = [str(c) for c in table.columns]
    if (
        len(names) != 13
        or tuple(name.lower()[:3] for name in names[1:]) != MONTHS
        or table[names[0]].dtype.kind not in "iu"
    ):
        return None
    years, values = table[names[0]].to_numpy(), table[names[1:]].to_numpy(dtype=np.float64)
    stamps = pd.DatetimeIndex(
        pd.to_datetime([f"{year}-{month:02d}" for year in years for month in range(1, 13)], format="%Y-%m")
    )
    flat = values.flatten()
    known = np.flatnonzero(np.isfinite(flat))
    inside = slice(known[0], known[-1] + 1)
    rows = np.repeat(np.arange(1, len(table) + 1), 12)
    notes.append(
        f"read as a row for each year, a column for each month: one series of {inside.stop - inside.start} months"
    )
    return [TimeSeries("value", stamps[inside], flat[inside], rows[inside])]


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
