"""Time stamps: parsed from a file's column, put into their zone, compared with a cutoff, written as text."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool_forecast import time_forms

if TYPE_CHECKING:
    import pandas as pd


def parse(column: pd.Series, time_format: str, notes: list[str], *, in_zone: bool, counted: bool = False) -> pd.Index:
    """A column as time stamps: in UTC if they have offsets and will be put `in_zone`; integers where time is `counted`.

    What was assumed is noted.
    """
    import pandas as pd

    if bool(column.isna().any()):
        row = int(np.flatnonzero(column.isna())[0]) + 1
        raise VqtoolError(f"row {row} has no time stamp", hint=f"delete the row; {time_forms.COUNTED}")
    if pd.api.types.is_numeric_dtype(column) and (counted or not time_format):
        found, called = (None, "") if counted else time_forms.from_numbers(column)
        if found is not None:
            notes.append(f"`{column.name}` read as {called}")
            return found
        values = column.to_numpy(dtype=np.float64)
        if (values != np.round(values)).any():
            steps = np.diff(values)
            if not (steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-6, atol=1e-9)):
                raise VqtoolError(
                    f"the times in `{column.name}` are numbers with fractions",
                    hint=f"dates, or whole numbers; {time_forms.COUNTED}",
                )
            notes.append(f"`{column.name}` rises in steps of {steps[0]:.6g}: the rows are counted from 1 on")
            return pd.Index(np.arange(1, len(values) + 1))
        return pd.Index(values.astype(np.int64))
    if pd.api.types.is_datetime64_any_dtype(column):
        return pd.DatetimeIndex(column)
    if pd.api.types.is_float_dtype(column):
        column = column.astype(np.int64)
    text = as_text(column)
    found, called = (None, "") if time_format else time_forms.from_text(text)
    if found is not None:
        notes.append(f"`{column.name}` read as {called}")
        return found
    if not time_format:
        text = time_forms.begins(time_forms.with_offsets(text, notes), notes)
    text, late = (text, None) if time_format else time_forms.midnight_as_24(text)
    index = pd.DatetimeIndex(_parsed(text, time_format, in_zone=in_zone))
    if late is not None and late.any():
        notes.append(f"{int(late.sum())} times of 24:00 read as 0:00 of the next day")
        index = index + pd.to_timedelta(late.astype(int), unit="D")
    return index


def as_text(column: pd.Series) -> pd.Series:
    """A column as text."""
    try:
        return column.astype(str)
    except UnicodeDecodeError as error:
        raise VqtoolError(f"`{column.name}` holds bytes that are not text") from error


def _parsed(column: pd.Series, time_format: str, *, in_zone: bool) -> pd.Series:
    """Text to stamps, in the format given or in the one way that the column can be read."""
    import pandas as pd

    clock = column.str.contains(":", regex=False)
    form = {"format": time_format} if time_format else _form(column)
    if "dayfirst" in form and clock.any() and not clock.all():  # midnights without a clock
        form["format"] = "mixed"
    offset = bool(column.str.contains(r"\d(?:[+-]\d{2}:?\d{2}|Z)$").all())
    try:
        with warnings.catch_warnings():  # pandas warns where it would guess each stamp by itself
            warnings.simplefilter("ignore" if "dayfirst" in form else "error", UserWarning)
            stamps = pd.to_datetime(column, utc=offset and in_zone, **form)
        if pd.api.types.is_datetime64_any_dtype(stamps):
            return stamps
    except (ValueError, TypeError, UserWarning) as error:
        if "Mixed timezones" in str(error):
            raise VqtoolError(
                "the stamps have several UTC offsets", hint="their time zone, e.g. -s data.timezone=Europe/Berlin"
            ) from error
    with warnings.catch_warnings(action="ignore"):
        wrong = pd.to_datetime(column, utc=True, errors="coerce", **form).isna().to_numpy()
    row = int(wrong.argmax())
    few = wrong.any() and not wrong.all()
    usual = column.iloc[int(np.argmin(wrong))]
    what = f"is not a time stamp like `{usual}`" if few else "is in no known format"
    example = 'data.time_format="%d.%m.%Y %H:%M"'
    raise VqtoolError(
        f"`{str(column.iloc[row])[:60]}` in row {row + 1} of `{column.name}` {what}",
        hint=f"repair or delete the row; {time_forms.COUNTED}"
        if few
        else f"{time_forms.COUNTED}; a format of your own is named by {example}",
    )


def _form(column: pd.Series) -> dict[str, Any]:
    """How pandas should read dates. One like 3/4/2020 is read one way only if the column rules out the other."""
    first = str(column.iloc[0])
    form = r"^\s*(\d{1,2})[/.-](\d{1,2})[/.-](\d{2,4})"
    numeric = bool(re.match(form, first)) and bool(column.str.match(form).all())
    numbers = column.str.extract(form) if numeric else None
    if not column.str.contains(r"\d{4}").any() if numbers is None else (numbers[2].str.len() == 2).any():
        fitting = " or ".join(f'"{form}"' for form in time_forms.two_digit_years(column)[:3])
        raise VqtoolError(  # 24-01-31 may be a day of 2024, of 2031 or of 2001
            f"dates like `{first}` have no year of four digits",
            hint=f"their format: -s data.time_format={fitting}" if fitting else time_forms.COUNTED,
        )
    if numbers is None:
        return {"format": "ISO8601"} if re.match(r"\d{4}(?![\s-]*[A-Za-z]{3})", first) else {}
    one, two = (int(numbers[i].astype(int).max()) for i in (0, 1))
    if (one > 12) == (two > 12):
        both = [_like(first, "%d", "%m"), _like(first, "%m", "%d")]
        possible = time_forms.readings(column, both) or both
        raise VqtoolError(
            f"dates like `{first}` may have the day or the month first",
            hint="-s data.time_format=" + " or ".join(f'"{form}"' for form in possible),
        )
    return {"dayfirst": one > 12}


def _like(cell: str, one: str, two: str) -> str:
    """The format of a cell like 3/4/2020 10:00, day and month in that order."""
    marks = re.findall(r"[/.-]", cell)
    clock = re.search(r"([ T])\d{1,2}:\d{2}(:\d{2})?(\.\d+)?( ?[AaPp][Mm])?$", cell)
    form = f"{one}{marks[0]}{two}{marks[1]}%Y"
    if clock is None:
        return form
    hour = "%I:%M" if clock[4] else "%H:%M"
    return f"{form}{clock[1]}{hour}{':%S' if clock[2] else ''}{'.%f' if clock[3] else ''}{' %p' if clock[4] else ''}"


ZONES = ("Europe/Berlin", "Europe/London", "Europe/Helsinki", "America/New_York", "America/Chicago", "America/Denver",
         "America/Los_Angeles", "Australia/Sydney")  # fmt: skip  # one for each way of moving the clock


def zone_like(index: pd.Index) -> str | None:
    """A zone whose summer time explains every hour that comes twice or is missing; None where there is none such."""
    if index.dtype.kind != "M" or index.tz is not None or len(index) < 3:
        return None
    steps = np.diff(index.asi8)
    step = np.median(steps)
    odd = np.flatnonzero((steps <= 0) | (steps > step))
    if not 0 < step <= 3600 * 10 ** {"s": 0, "ms": 3, "us": 6, "ns": 9}[index.unit] or not len(odd):
        return None
    for zone in ZONES:
        try:
            true = index.tz_localize(zone, ambiguous="raise" if index.is_unique else "infer")
        except Exception:  # not times of this zone: zoneinfo's, pytz's and pandas' errors share no parent
            continue
        if (np.diff(true.asi8)[odd] == step).all():
            return zone
    return None


def localised(index: pd.Index, timezone: str) -> pd.Index:
    """One series' stamps in the zone, if one is given; the order decides in an hour that comes twice."""
    if not timezone or index.dtype.kind != "M":
        return index
    try:
        if index.tz is not None:
            return index.tz_convert(timezone)
        return index.tz_localize(timezone, ambiguous="raise" if index.is_unique else "infer")
    except Exception as error:  # zoneinfo's, pytz's and pandas' own errors share no parent
        raise VqtoolError(f"the stamps are not times of `{timezone}`: {error}") from error


def until(cutoff: str | None, stamps: pd.Index) -> NDArray[np.bool_]:
    """Which stamps are as early as the cutoff."""
    return np.ones(len(stamps), dtype=bool) if cutoff is None else np.asarray(stamps <= _cutoff(cutoff, stamps))


def _cutoff(cutoff: str, stamps: pd.Index) -> Any:
    """The cutoff as a stamp of the file's kind: an integer, or a time, in the file's zone where it has one."""
    import pandas as pd

    timed = stamps.dtype.kind == "M"
    try:
        if not timed:
            return int(cutoff)
        limit = pd.Timestamp(cutoff)
    except ValueError:
        kind = "a time" if timed else "an integer"
        raise VqtoolError(f"`{cutoff}` is not {kind}", hint=f"--cutoff, as in {stamps[-1]}") from None
    if stamps.tz is None and limit.tz is not None:
        raise VqtoolError(
            f"the cutoff {cutoff} has a zone; the file's stamps have none",
            hint="a --cutoff without one, or the file's zone, e.g. -s data.timezone=Europe/Berlin",
        )
    if stamps.tz is None:
        return limit
    return limit.tz_localize(stamps.tz) if limit.tz is None else limit.tz_convert(stamps.tz)


def has_clock(stamps: pd.Index) -> bool:
    """Whether any stamp is at another time than midnight, or has a zone."""
    if stamps.dtype.kind != "M":
        return False
    return stamps.tz is not None or not bool((stamps == stamps.normalize()).all())


def written(stamps: pd.Index, clock: bool) -> list[str]:
    """Stamps as text: the date, with `clock` the time too, and the offset where there is one."""
    if stamps.dtype.kind != "M":
        return [str(int(value)) for value in stamps]
    if stamps.tz is not None:
        return [stamp.isoformat(sep=" ") for stamp in stamps]
    fine = ".%f" if clock and bool((stamps.microsecond != 0).any()) else ""
    return list(stamps.strftime("%Y-%m-%d" + (f" %H:%M:%S{fine}" if clock else "")))
