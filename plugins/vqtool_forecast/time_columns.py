"""Which columns of a table hold its times: dates, dates and clocks apart, years with months, quarters or weeks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from vqtool.errors import VqtoolError
from vqtool_forecast.dialect import CLOCK, DATE, plain
from vqtool_forecast.numbers import is_flag, is_text
from vqtool_forecast.time_forms import (
    COUNTED,
    MONTH,
    PERIOD,
    QUARTER,
    WEEK,
    YEARS,
    ZONES,
    from_numbers,
    from_text,
    two_digit_years,
)

if TYPE_CHECKING:
    import pandas as pd

TIME_NAMES = ("ds", "date", "datetime", "timestamp", "time", "datetimeutc", "datetimegmt", "utctimestamp", "datum",
              "zeit", "fecha", "day", "week", "month", "quarter", "period", "year", "yr", "jahr", "año", "ano", "année",
              "annee", "obs", "obsdate", "observationdate", "timeperiod", "dates", "level1")  # fmt: skip
CLOCK_NAMES = {"hour", "hr", "hh", "time", "clock", "stunde", "uhrzeit", "zeit", "hora", "heure", "he"}
PARTS = {
    "year": {"year", "yr", "yyyy", "jahr", "año", "ano", "année", "annee"},
    "month": {"month", "mo", "mon", "mth", "mm", "monat", "mes", "mois"},
    "quarter": {"quarter", "qtr", "quartal", "trimestre"},
    "period": {"period"},
    "week": {"week", "wk", "kw", "woche", "isoweek", "weekofyear"},
    "yearday": {"doy", "dayofyear", "yday", "yearday"},
    "day": {"day", "dy", "dd", "dayofmonth", "tag", "dia", "jour"},
    "hour": {"hour", "hr", "hh", "stunde", "hora", "heure"},
    "minute": {"minute", "min", "mi", "mn"},
}
LARGEST = {"year": YEARS[1], "month": 12, "quarter": 4, "period": 13, "week": 53, "yearday": 366, "day": 31, "hour": 24,
           "minute": 59}  # fmt: skip
END = re.compile(r"(?:^|[^a-z])(?:bis|to|end|ends|ending|until|ende|fin|hasta|stop)(?:[^a-z]|$|time|date)")
MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
IN_WORDS = r"(\d{1,2}[ -])?[A-Za-z]{3,9}\.?[ -](\d{1,2},?[ -])?\d{4}|\d{4}[ -][A-Za-z]{3,9}"
SEEN = 50  # cells that are looked at


def joined_times(table: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, str]:
    """Times from a year and its parts, or from dates and clocks, in one column; its name, "" where there is none."""
    dates = [c for c in table.columns if is_dates(table[c]) and plain(c) not in CLOCK_NAMES]
    clocks = [c for c in table.columns if c not in dates and is_clock(table[c], str(c))]
    if not dates or (len(dates) == 1 and plain(dates[0]) in PARTS["year"]):
        return _from_parts(table, notes)
    begin = [c for c in dates if not END.search(str(c).lower())][:1] or dates[:1]
    if not clocks or (is_text(table[begin[0]]) and bool(table[begin[0]].astype(str).str.contains(":").any())):
        return table, ""
    if len(dates) > 1 and not any(END.search(str(c).lower()) for c in dates):
        return table, ""
    return _date_and_clock(table, begin[0], clocks, notes)


def _from_parts(table: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, str]:
    """Times from columns of years and of months, quarters, weeks or days of the year."""
    import pandas as pd

    column, number = {}, {}
    for part, names in PARTS.items():
        name = next((c for c in table.columns if plain(c) in names), None)
        if name is not None and (found := _numbers(table[name], part)) is not None:
            column[part], number[part] = name, found
    inside = next((part for part in ("month", "quarter", "period", "week", "yearday") if part in number), "")
    if "year" not in number or not inside:
        return table, ""
    year, at = number["year"], number[inside]
    if inside == "period":  # of the Bureau of Labor Statistics: M01 to M12 and M13, the year's mean, or Q01
        quarters = bool(table[column[inside]].astype(str).str.upper().str.contains("Q").any())
        if (means := (at == 13).to_numpy()).any():
            notes.append(f"{int(means.sum())} rows of yearly means (M13) left out")
            table, year, at = table[~means], year[~means], at[~means]
        at, inside_month = (3 * at - 2 if quarters else at), True
    else:
        inside_month = inside in ("month", "quarter")
        at = 3 * at - 2 if inside == "quarter" else at
    used = [column["year"], column[inside]]
    days = inside == "yearday"
    if inside_month:
        day: Any = 1
        if inside == "month" and "day" in number:
            day, days = number["day"], True
            used.append(column["day"])
        stamps = pd.to_datetime(pd.DataFrame({"year": year, "month": at, "day": day}), errors="coerce")
    else:
        text = year.astype("Int64").astype(str) + "-" + at.astype("Int64").astype(str).str.zfill(2)
        text, form = (text + "-1", "%G-%V-%u") if inside == "week" else (text, "%Y-%j")
        stamps = pd.to_datetime(text, format=form, errors="coerce")
    for part, unit in (("hour", "h"), ("minute", "min")):
        if days and part in number:
            stamps = stamps + pd.to_timedelta(number[part], unit=unit)
            used.append(column[part])
    if bool((stamps.isna() & table[used].notna().all(axis=1)).any()):
        return table, ""
    return _with_times(table, used, stamps, notes)


def _numbers(column: pd.Series, part: str) -> pd.Series | None:
    """A part of a date as whole numbers, of 3, Q1, M01 or March; None where the column is not one."""
    import pandas as pd

    if is_text(column):
        text = column.astype(str).str.strip().str.lower().where(column.notna())
        number = pd.to_numeric(text.str.extract(r"^(?:[qm]?(\d{1,4})|(?P<n>\d)q)$").bfill(axis=1)[0])
        if part == "month":
            months = {name: i for i, name in enumerate(MONTH_NAMES, 1)}
            number = number.fillna(text.str[:3].map(months))
        if part == "period" and not text.dropna().str.match("[qm]").all():
            return None
    elif column.dtype.kind in "iuf" and part != "period":
        number = column
    else:
        return None
    known = number[column.notna()]
    least = {"year": YEARS[0], "hour": 0, "minute": 0}.get(part, 1)
    good = len(known) > 0 and bool((known % 1 == 0).all()) and bool(known.between(least, LARGEST[part]).all())
    return number if good else None


def _date_and_clock(table: pd.DataFrame, date: str, clocks: list[str], notes: list[str]) -> tuple[pd.DataFrame, str]:
    """Times from a column of dates and one of times of day; the ends of intervals are left out."""
    import pandas as pd

    starts = [c for c in clocks if not END.search(str(c).lower())] or clocks
    texts = [c for c in starts if is_text(table[c])]
    chosen, clock = (texts or starts)[0], table[(texts or starts)[0]]
    if ends := [c for c in clocks if c != chosen and is_text(table[c])]:
        notes.append(f"`{ends[0]}` is the end of each interval and is left out")
        table = table.drop(columns=ends)
    if is_text(clock):
        padded = clock.astype(str).str.strip().str.replace(r"^(\d):", r"0\1:", regex=True)
        day = table[date].dt.strftime("%Y-%m-%d") if table[date].dtype.kind == "M" else table[date].astype(str)
        return _with_times(table, [date, chosen], day.str.replace(r" 00:00:00$", "", regex=True) + " " + padded, notes)
    if clock.max() > 24:  # 100, 200, ..., 2400
        clock = clock // 100 + clock % 100 / 60
    whole, _ = from_numbers(table[date]) if table[date].dtype.kind in "iuf" else (None, "")
    from vqtool_forecast.times import parse

    begin = whole if whole is not None else parse(table[date], "", [], in_zone=False)
    return _with_times(table, [date, chosen], begin + pd.to_timedelta(clock.to_numpy(), unit="h"), notes)


def _with_times(table: pd.DataFrame, parts: list[str], stamps: object, notes: list[str]) -> tuple[pd.DataFrame, str]:
    """The table with one column of times in place of its parts."""
    notes.append("times from the columns " + ", ".join(f"`{part}`" for part in parts))
    name = " ".join(parts)
    table = table.drop(columns=parts)
    table.insert(0, name, stamps)
    return table, name


def is_clock(column: pd.Series, name: str) -> bool:
    """Whether a column holds times of day: 13:00, 1:00 PM, or hours from 0 to 24 under a usual name."""
    if is_text(column):
        return bool(
            column.head(SEEN).astype(str).str.strip().str.fullmatch(f"(?:{CLOCK.pattern})( ?[AaPp][Mm])?").all()
        )
    return (
        plain(name) in CLOCK_NAMES
        and column.dtype.kind in "iuf"
        and bool((column % 1 == 0).all() and column.between(0, 2400).all() and column.nunique() > 2)
    )


def is_dates(column: pd.Series) -> bool:
    """Whether a column looks like dates: real ones, text in a usual form, or whole numbers like 20240131."""
    if column.dtype.kind == "M":
        return True
    if column.dtype.kind in "iuf":
        return bool(column.notna().all()) and column.min() > YEARS[1] and from_numbers(column)[0] is not None
    if not is_text(column):
        return False
    text = column.dropna().head(SEEN).astype(str).str.strip()
    text = text.str.replace(rf" ?(?:{'|'.join(ZONES)})$", "", regex=True)
    form = "|".join(
        f"(?:{re.sub(r'[?]P<[a-z]>', '', p)})"
        for p in (DATE.pattern, QUARTER.pattern, MONTH.pattern, WEEK.pattern, PERIOD.pattern, IN_WORDS)
    )
    return len(text) > 0 and bool(text.str.fullmatch(form).all())


def _readable(column: pd.Series) -> bool:
    """Whether the first cells of a text can be read as times in some way."""
    import warnings

    import pandas as pd

    text = column.dropna().head(SEEN).astype(str).str.strip()
    if not len(text) or not text.str.contains(r"\d").all():
        return False
    if from_text(text)[0] is not None or two_digit_years(text):
        return True
    if text.str.fullmatch(r"[-+\d.,\s%€$£]*").any():  # numbers
        return False
    with warnings.catch_warnings(action="ignore"):
        return not pd.to_datetime(text, errors="coerce", utc=True, format="mixed").isna().any()


def time_column(table: pd.DataFrame) -> str:
    """The one column that holds dates, or is named like a time, or can be read as times, or rises in equal steps."""
    texts = [c for c in table.columns if is_text(table[c]) and not is_flag(table[c])]
    numbers = [c for c in table.columns if table[c].dtype.kind in "iuf"]
    dated = [c for c in table.columns if is_dates(table[c])]
    begins = [c for c in dated if not END.search(str(c).lower())] or dated
    named = [c for c in table.columns if plain(c) in TIME_NAMES and (c in numbers or c in texts)]
    years = [c for c in named if c in numbers and from_numbers(table[c])[0] is not None]
    index = [c for c in table.columns[:1] if c in numbers and _rises_evenly(table[c])]
    choices = (begins, [c for c in begins if c in named], [c for c in named if c in texts], years, named,
               [c for c in texts if _readable(table[c])], index)  # fmt: skip
    for found in choices:
        if len(found) == 1:
            return str(found[0])
    likely = next((found[0] for found in choices if found), None)
    if likely is None:
        raise VqtoolError(
            f"none of the columns {listed(table.columns)} holds times",
            hint=f"{COUNTED}; or data.time names the column of times",
        )
    raise VqtoolError(
        f"which of the columns {listed(texts or table.columns)} is the time?", hint=f'-s data.time="{likely}"'
    )


def _rises_evenly(column: pd.Series) -> bool:
    """Whether numbers rise in equal steps, as times that are counted do, or a clock in seconds."""
    steps = np.diff(column.to_numpy(dtype=np.float64))
    return len(steps) > 2 and bool(steps[0] > 0) and bool(np.allclose(steps, steps[0], rtol=1e-6, atol=1e-9))


def listed(names: object) -> str:
    """Names as text, the first twelve of them."""
    all_names = [f"`{name}`" for name in names]  # type: ignore[attr-defined]  # any iterable of names
    return ", ".join(all_names[:12]) + (", ..." if len(all_names) > 12 else "")


def without_footer(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The table without last rows like `Total` or `Source: ...`, seen by a column of dates that they are not in."""
    for name in table.columns:
        column = table[name]
        if not is_text(column) or not is_dates(column.head(SEEN)):
            continue
        last = column.tail(10).map(lambda cell: bool(re.search(r"\d{2}", str(cell)) and not str(cell)[:1].isalpha()))
        if str(column.iloc[0])[:1].isalpha():
            last = column.tail(10).map(lambda cell: bool(re.search(r"\d", str(cell))))
        many = int((~last[::-1]).cummin().sum()) if len(table) > 20 else 0
        if many and many < 10:
            words = [str(cell)[:40] for cell in column.tail(many) if str(cell) not in ("nan", "None", "NaT", "")]
            notes.append(f"{many} rows after the data left out{f', like `{words[0]}`' if words else ''}")
            return table.iloc[:-many].infer_objects()
    return table
