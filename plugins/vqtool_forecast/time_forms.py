"""Times as people write them beside ISO dates: whole numbers, quarters, ISO weeks, months in words, 24:00."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

COUNTED = "-s 'data.time=#' counts the rows instead"
YEARS = (1500, 2200)
EPOCHS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
EARLIEST, LATEST = 10**8, 5 * 10**9  # seconds since 1970: 1973 to 2128
DIGITS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
CALLED = {4: "years", 6: "months (yyyymm)", 8: "dates (yyyymmdd)", 10: "dates and hours (yyyymmddhh)",
          12: "dates and times", 14: "dates and times"}  # fmt: skip
QUARTER = re.compile(r"(?P<y>\d{4})[\s:-]*[Qq](?P<n>[1-4])|[Qq](?P<m>[1-4])[\s/:-]*(?P<z>\d{4})")
PERIOD = re.compile(r"(?P<y>\d{4}):(?P<n>\d{1,2})")  # of gretl and RATS: months or, up to 4, quarters
MONTH = re.compile(r"(?P<y>\d{4})[\s:-]*[Mm](?P<n>\d{1,2})")
WORDS = re.compile(r"\d{4}[\s-]+[A-Za-z]{3,9}|[A-Za-z]{3,9}[\s-]+\d{4}")
WEEK = re.compile(r"(?P<y>\d{4})-?[Ww](?P<n>\d{2})(?:-?(?P<d>[1-7]))?")
INTERVAL = r"^(.*\d.*?)\s*(?: - | – | to | bis |/)\s*(\d.*\d.*)$"
# hours ahead of UTC of the letters that people write behind times
ZONES = {"UTC": 0, "GMT": 0, "WET": 0, "WEST": 1, "BST": 1, "CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2, "EET": 2,
         "EEST": 3, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7, "JST": 9,
         "AEST": 10, "AEDT": 11}  # fmt: skip
EXCEL = ("1899-12-30", 20_000, 80_000)  # the day that Excel counts from, and its numbers of 1954 to 2119


def from_numbers(column: pd.Series) -> tuple[pd.Index | None, str]:
    """Whole numbers, or years with fractions, as times, and what they are called; None where they are no dates."""
    import pandas as pd

    values = column.to_numpy(dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        return None, ""
    if (values != np.round(values)).any():
        return _decimal_years(values)
    if np.abs(values).max() > 2**62:
        return None, ""
    whole = values.astype(np.int64)
    low, high = int(whole.min()), int(whole.max())
    digits = len(str(low))
    if low > 0 and digits == len(str(high)) and digits in DIGITS and YEARS[0] <= int(str(low)[:4]) <= YEARS[1]:
        stamps = pd.to_datetime(pd.Series(whole).astype(str), format=DIGITS[digits], errors="coerce")
        many = len(np.unique(whole)) > 1
        if (
            not stamps.isna().any()
            and many
            and int(str(high)[:4]) <= YEARS[1]
            and (digits != 4 or _counts_years(whole))
        ):
            return pd.DatetimeIndex(stamps), CALLED[digits]
    weeks = whole % 100
    years = digits == 6 == len(str(high)) and YEARS[0] <= low // 100 and high // 100 <= YEARS[1]
    if years and weeks.min() >= 1 and 12 < weeks.max() <= 53:
        text = pd.Series(whole // 100).astype(str) + "-" + pd.Series(weeks).astype(str).str.zfill(2) + "-1"
        return pd.DatetimeIndex(pd.to_datetime(text, format="%G-%V-%u")), "ISO weeks (yyyyww)"
    if EXCEL[1] <= low and high <= EXCEL[2] and str(column.name).lower() in ("date", "datum", "fecha", "day", "ds"):
        return pd.DatetimeIndex(pd.Timestamp(EXCEL[0]) + pd.to_timedelta(whole, unit="D")), "days as Excel counts them"
    for unit, size in EPOCHS.items():
        if EARLIEST * size <= low and high <= LATEST * size:
            return pd.DatetimeIndex(pd.to_datetime(whole, unit=unit)), f"{unit} since 1970"
    return None, ""


def _counts_years(whole: Any) -> bool:
    """Whether numbers like 1990 follow each other as years do."""
    return bool((np.diff(np.unique(whole)) <= 10).all())


def _decimal_years(values: Any) -> tuple[pd.Index | None, str]:
    """Years like 1949.083, as R writes months and quarters."""
    import pandas as pd

    if values.min() < YEARS[0] or values.max() > YEARS[1]:
        return None, ""
    for parts, name in ((4, "quarters"), (12, "months")):
        place = values * parts
        if (np.abs(place - np.round(place)) < 0.02 * parts / 4).all():
            at = np.round(place).astype(np.int64)
            months = at * (12 // parts)
            years = pd.Series(months // 12).astype(str) + "-" + pd.Series(months % 12 + 1).astype(str).str.zfill(2)
            return pd.DatetimeIndex(pd.to_datetime(years, format="%Y-%m")), f"{name} as parts of a year"
    return None, ""


def from_text(column: pd.Series) -> tuple[pd.Index | None, str]:
    """Quarters, months and weeks by number; None where the cells are written otherwise."""
    import pandas as pd

    text = column.str.strip()
    forms = ((QUARTER, "quarters"), (MONTH, "months"), (WEEK, "ISO weeks"), (PERIOD, "months"))
    for pattern, name in forms:
        if not pattern.fullmatch(str(text.iloc[0])):
            continue
        parts = text.str.extract(f"^(?:{pattern.pattern})$")
        if pattern is PERIOD and int(pd.to_numeric(parts["n"]).max()) <= 4:
            parts, name = parts.assign(m=None, z=None), "quarters"
        if name == "quarters":
            year, number = parts["y"].fillna(parts["z"]), parts["n"].fillna(parts["m"])
        else:
            year, number = parts["y"], parts["n"]
        if year.isna().any():
            return None, ""
        if name == "ISO weeks":
            joined = year + "-" + number + "-" + parts["d"].fillna("1")
            return pd.DatetimeIndex(pd.to_datetime(joined, format="%G-%V-%u")), name
        month = (3 * number.astype(int) - 2 if name == "quarters" else number.astype(int)).astype(str)
        return pd.DatetimeIndex(pd.to_datetime(year + "-" + month, format="%Y-%m")), name
    if WORDS.fullmatch(str(text.iloc[0])):
        plain = text.str.replace(r"[\s-]+", " ", regex=True)
        for form in ("%Y %b", "%Y %B", "%b %Y", "%B %Y"):
            found = pd.to_datetime(plain, format=form, errors="coerce")
            if not found.isna().any():
                return pd.DatetimeIndex(found), "months"
    return None, ""


def begins(column: pd.Series, notes: list[str]) -> pd.Series:
    """Text with the beginning of each interval in place of `01.01.2024 00:00 - 01.01.2024 01:00`."""
    if not re.match(INTERVAL, str(column.iloc[0])):
        return column
    parts = column.str.extract(INTERVAL)
    if parts.isna().any(axis=None) or len(str(parts[0].iloc[0])) < 8:
        return column
    notes.append(f"`{column.name}` holds intervals like `{column.iloc[0]}`: dated by their beginnings")
    return parts[0].rename(column.name)


def with_offsets(column: pd.Series, notes: list[str]) -> pd.Series:
    """Text with offsets in place of a zone's letters, as `+01:00` of ` CET`."""
    form = rf"^(.*\d) ?({'|'.join(ZONES)})$"
    if not re.match(form, str(column.iloc[0])):
        return column
    parts = column.str.extract(form)
    if parts.isna().any(axis=None):
        return column
    signs = {name: f"{'-' if hours < 0 else '+'}{abs(hours):02d}:00" for name, hours in ZONES.items()}
    found = ", ".join(f"{name} as {signs[name]}" for name in parts[1].unique())
    notes.append(f"`{column.name}`: the zone {found}")
    return (parts[0] + parts[1].map(signs)).rename(column.name)


def midnight_as_24(column: pd.Series) -> tuple[pd.Series, Any]:
    """Text with 24:00 as 00:00, and which rows are a day later therefore."""
    late = column.str.contains(r"(?:^|[ T])24:00(?::00)?$", regex=True).to_numpy(dtype=bool)
    return (column.str.replace(r"24:00(:00)?$", r"00:00\1", regex=True), late) if late.any() else (column, late)


def two_digit_years(column: pd.Series) -> list[str]:
    """The formats, with a year of two digits, in which all cells can be read."""

    first = str(column.iloc[0])
    rest = re.sub(r"^[^T ]+", "", first, count=1)
    clock = {0: "", 1: rest[:1] + "%H:%M", 2: rest[:1] + "%H:%M:%S"}.get(rest.count(":"), "")
    mark = next((c for c in first if c in "-/."), "-")
    order = (("%m", "%d", "%y"), ("%d", "%m", "%y"), ("%y", "%m", "%d"), ("%d", "%b", "%y"))
    forms = [mark.join(parts) + clock for parts in order] + [f"%b{mark}%y", f"%m{mark}%y"]
    return readings(column, forms)


def readings(column: pd.Series, forms: list[str]) -> list[str]:
    """Those formats in which all cells can be read; of several, those that give a regular calendar, if any does."""
    import pandas as pd

    from vqtool_forecast.frequency import known

    found = {form: pd.to_datetime(column, format=form, errors="coerce") for form in forms}
    found = {form: stamps for form, stamps in found.items() if not stamps.isna().any()}
    regular = [form for form, stamps in found.items() if known(pd.DatetimeIndex(stamps))]
    return regular or list(found)
