"""Which columns of a table are ids, times and values, by the names that people use; what was recognised is noted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from vqtool.errors import VqtoolError
from vqtool_forecast.dialect import CLOCK, DATE
from vqtool_forecast.numbers import CHOOSE, Decimal, is_mostly_words, is_text
from vqtool_forecast.time_forms import MONTH, QUARTER, WEEK, YEARS, from_numbers

if TYPE_CHECKING:
    import pandas as pd

SENTINELS = (-999.0, -9999.0, -99999.0)
ROWS = "#"  # in place of a time column: the rows are counted
ID_NAMES = ("unique_id", "item_id", "series_id", "ts_id", "ticker", "symbol", "sensor_id", "store_id", "id", "series",
            "item", "store", "key", "name", "level_0")  # fmt: skip
TIME_NAMES = ("ds", "date", "datetime", "timestamp", "time", "date_time", "datetime_utc", "datetime_gmt", "time_stamp",
              "utc_timestamp", "datum", "zeit", "fecha", "day", "week", "month", "quarter", "period", "year", "yr",
              "jahr", "obs_date", "observation_date", "level_1")  # fmt: skip
TARGET_NAMES = ("y", "target", "value", "values", "close", "price", "sales", "demand", "load", "consumption")
HOURS = ("hour", "hr", "time", "clock", "stunde", "uhrzeit", "zeit", "hora", "he")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


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
    encoding: str = ""
    decimal: Decimal = "auto"

    @property
    def text(self) -> tuple[str, ...]:
        """The columns that are names, whatever is in them."""
        return () if self.layout == "wide" else (self.id, *self._aliases())

    def _aliases(self) -> tuple[str, ...]:
        return (
            tuple(n for name in ID_NAMES[:8] for n in (name, name.title(), name.upper()))
            if self.id == "unique_id"
            else ()
        )


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a table are; a wide table has no id and no target."""

    time: str
    id: str = ""
    target: str = ""

    @property
    def long(self) -> bool:
        """Whether there is a row for each value."""
        return bool(self.id)


def listed(names: object) -> str:
    """Names as text, the first twelve of them."""
    all_names = [f"`{name}`" for name in names]  # type: ignore[attr-defined]  # any iterable of names
    return ", ".join(all_names[:12]) + (", ..." if len(all_names) > 12 else "")


def find_columns(table: pd.DataFrame, options: ReadOptions, notes: list[str]) -> tuple[pd.DataFrame, Columns]:
    """What the columns are; the table is another one where times were put together from several columns."""
    there = list(table.columns)
    wanted = Columns(options.time or "ds", options.id, options.target)
    missing = [name for name in (wanted.id, wanted.time, wanted.target) if name not in there]
    if options.layout == "long" or (options.layout == "auto" and not missing):
        if missing:
            raise VqtoolError(
                f"a long file needs the column{'s' if len(missing) > 1 else ''} {listed(missing)}; "
                f"it has {listed(there)}",
                hint='name yours: -s data.id="..." -s data.time="..." -s data.target="..."',
            )
        return table, wanted
    if options.time == ROWS:
        return table.assign(**{ROWS: np.arange(1, len(table) + 1)}), Columns(ROWS)
    if options.time and options.time not in there:
        raise VqtoolError(f"there is no column `{options.time}`; there are {listed(there)}")
    if options.layout == "auto" and (found := _by_name(table, options)):
        notes.append(f"read as a long file: ids in `{found.id}`, times in `{found.time}`, values in `{found.target}`")
        return table, found
    if options.time:
        return table, Columns(options.time)
    table, joined = _joined_times(table, notes)
    return table, Columns(joined or _time_column(table))


def _by_name(table: pd.DataFrame, options: ReadOptions) -> Columns | None:
    """The columns of a long file under other names that people use; None where one of the three is missing."""
    lower = {str(name).strip().lower(): str(name) for name in reversed(table.columns)}

    def named(given: str, usual: str, names: tuple[str, ...]) -> str:
        if given and given != usual:
            return given if given in table.columns else ""
        return next((lower[name] for name in names if name in lower), "")

    found = Columns(
        named(options.time, "", TIME_NAMES), named(options.id, "unique_id", ID_NAMES),
        named(options.target, "y", TARGET_NAMES),
    )  # fmt: skip
    if not (found.time and found.id and found.target) or len({found.time, found.id, found.target}) < 3:
        return None
    return found if is_text(table[found.id]) or found.id.lower() in ID_NAMES[:4] else None


def _joined_times(table: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, str]:
    """Times from year and month or quarter, or from date and hour, in one column; its name, "" where there is none."""
    import pandas as pd

    lower = {str(name).strip().lower(): str(name) for name in table.columns}

    def whole(name: str) -> bool:
        column = table[lower[name]] if name in lower else None
        return column is not None and column.dtype.kind in "iuf" and bool((column % 1 == 0).all())

    year = next((lower[name] for name in ("year", "yr", "jahr") if whole(name)), "")
    parts = [lower[name] for name in ("quarter", "month", "day", "hour", "hr") if whole(name)]
    if year and parts and parts[0].lower() in ("quarter", "month") and not (table[parts[0]].between(1, 12)).all():
        parts = []
    if year and parts and parts[0].lower() in ("quarter", "month"):
        number = table[parts[0]].astype(int)
        month = 3 * number - 2 if parts[0].lower() == "quarter" else number
        parts = [part for part in parts if part == parts[0] or parts[0].lower() == "month"]
        when = pd.DataFrame({"year": table[year].astype(int), "month": month, "day": 1})
        for part in parts[1:]:
            if part.lower() == "day":
                when["day"] = table[part].astype(int)
        stamps = pd.to_datetime(when)
        hours = [part for part in parts if part.lower() in ("hour", "hr")]
        stamps = stamps + pd.to_timedelta(table[hours[0]], unit="h") if hours else stamps
        return _with_times(table, [year, *parts], stamps, notes)
    dates = [c for c in table.columns if _is_dates(table[c]) and str(c).lower() not in HOURS[2:]]
    clocks = [c for c in table.columns if str(c).strip().lower() in HOURS and c not in dates and _is_clock(table[c])]
    if (
        len(dates) != 1
        or len(clocks) != 1
        or (is_text(table[dates[0]]) and bool(table[dates[0]].astype(str).str.contains(":").any()))
    ):
        return table, ""
    clock = table[clocks[0]]
    if is_text(clock):
        joined = table[dates[0]].astype(str) + " " + clock.astype(str).str.zfill(5)
        return _with_times(table, [dates[0], clocks[0]], joined, notes)
    if clock.max() > 24:  # 100, 200, ..., 2400
        clock = clock // 100 + clock % 100 / 60
    day, _ = from_numbers(table[dates[0]]) if table[dates[0]].dtype.kind in "iuf" else (None, "")
    from vqtool_forecast.times import parse

    begin = day if day is not None else parse(table[dates[0]], "", [], in_zone=False)
    return _with_times(table, [dates[0], clocks[0]], begin + pd.to_timedelta(clock.to_numpy(), unit="h"), notes)


def _with_times(table: pd.DataFrame, parts: list[str], stamps: object, notes: list[str]) -> tuple[pd.DataFrame, str]:
    """The table with one column of times in place of its parts."""
    notes.append(f"times from the columns {listed(parts)}")
    name = " ".join(parts)
    table = table.drop(columns=parts)
    table.insert(0, name, stamps)
    return table, name


def _is_clock(column: pd.Series) -> bool:
    """Whether a column holds times of day: 13:00, or hours from 0 to 24."""
    if is_text(column):
        return bool(column.astype(str).str.strip().str.fullmatch(CLOCK.pattern).all())
    return column.dtype.kind in "iuf" and bool(
        (column % 1 == 0).all() and column.between(0, 2400).all() and column.nunique() > 2
    )


def _is_dates(column: pd.Series) -> bool:
    """Whether a column looks like dates: real ones, text in a usual form, or whole numbers like 20240131."""
    if column.dtype.kind == "M":
        return True
    if column.dtype.kind in "iuf":
        return bool(column.notna().all()) and column.min() > YEARS[1] and from_numbers(column)[0] is not None
    if not is_text(column):
        return False
    text = column.dropna().head(50).astype(str).str.strip()
    words = r"(\d{1,2}[ -])?[A-Za-z]{3,9}\.?[ -](\d{1,2},?[ -])?\d{4}|\d{4}[ -][A-Za-z]{3,9}"
    form = "|".join(
        f"(?:{re.sub(r'[?]P<[a-z]>', '', p)})"
        for p in (DATE.pattern, QUARTER.pattern, MONTH.pattern, WEEK.pattern, words)
    )
    return len(text) > 0 and bool(text.str.fullmatch(form).all())


def _time_column(table: pd.DataFrame) -> str:
    """The one column of a wide file that does not hold numbers, or one that is named like a time, or holds dates."""
    numbers = set(table.select_dtypes("number"))
    texts = [c for c in table.columns if c not in numbers and not is_flag(table[c])]
    named = [c for c in table.columns if str(c).strip().lower() in TIME_NAMES]
    dated = [c for c in table.columns if _is_dates(table[c])]
    words = {c for c in texts if is_mostly_words(table[c])}
    alone = texts if not dated and not named and texts and table[texts[0]].astype(str).str.contains(r"\d").any() else []
    for found in (alone, [c for c in texts if c in dated], named, dated,
                  [c for c in named if c in texts], [c for c in named if c in dated]):  # fmt: skip
        if len(found) == 1 and not (words - {found[0]} and table[found[0]].duplicated().any()):
            return str(found[0])
    first = str(table.columns[0])
    if first.startswith("Unnamed") and first in numbers and from_numbers(table[first])[0] is not None:
        return first
    years = [c for c in named if c in numbers and from_numbers(table[c])[0] is not None]
    if len(years) == 1 and not (words and table[years[0]].duplicated().any()):
        return str(years[0])
    if not dated and not named:
        raise VqtoolError(
            f"none of the columns {listed(table.columns)} holds times",
            hint="-s data.time=\"...\" names it; to count the rows instead: -s 'data.time=#'",
        )
    raise VqtoolError(f"which of the columns {listed(texts or table.columns)} is the time?", hint=_which(table, texts))


def _which(table: pd.DataFrame, texts: list[str]) -> str:
    """How to name the columns, with the likeliest names filled in."""
    times = [c for c in table.columns if _is_dates(table[c])] or [
        c for c in table.columns if str(c).lower() in TIME_NAMES
    ]
    ids = [c for c in texts if c not in times]
    time = times[0] if times else "..."
    ids = [c for c in ids if not table.duplicated([c, time]).any()] if times else ids
    values = [c for c in table.columns if c not in (*ids, *times) and not is_text(table[c])]
    long = (f'-s data.layout="long" -s data.id="{ids[0] if ids else "..."}" -s data.time="{time}" '
            f'-s data.target="{values[0] if values else "..."}"')  # fmt: skip
    if ids and times and table[time].duplicated().any():
        return long
    return f'-s data.time="{time}"; of a long file also {long}'


def series_columns(table: pd.DataFrame, time: str, options: ReadOptions, notes: list[str]) -> list[str]:
    """The columns of a wide file that may be series: unless some are asked for, no id, index, flags or words."""
    there = [str(c) for c in table.columns if c != time]
    if options.series:
        return there
    if options.layout == "auto" and options.id in there and options.time != ROWS:
        others = listed(c for c in table.columns if c != options.id)
        raise VqtoolError(
            f"`{options.id}` names the series of a long file, but which of {others} are its times and values?",
            hint=f'-s data.layout="long" -s data.time="{time}" -s data.target="..."; if it is a series: '
            '-s data.layout="wide"',
        )
    left_out = {c: "true or false" for c in there if is_flag(table[c])}
    left_out |= {c: "text" for c in there if c not in left_out and is_mostly_words(table[c])}
    if "Unnamed: 0" in there and len(there) > 1:
        left_out["Unnamed: 0"] = "a column without a name, as of an index"
    notes += [f"`{name}` is not a series ({why}) and is left out" for name, why in left_out.items()]
    if len(left_out) == len(there):
        raise VqtoolError(f"no column is a series: {listed(there)}", hint=CHOOSE)
    return [name for name in there if name not in left_out]


def is_flag(column: pd.Series) -> bool:
    """Whether a column holds true and false, and perhaps gaps."""
    from pandas.api.types import infer_dtype

    return bool(infer_dtype(column, skipna=True) == "boolean")
