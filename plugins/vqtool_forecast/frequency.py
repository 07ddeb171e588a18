"""The calendar of a series: what step its time stamps keep, which stamps come next, and how long its season is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vqtool.errors import VqtoolError
from vqtool_forecast import sessions

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 4  # stamps that a frequency is inferred from
COVERED = 0.7  # share of a calendar's stamps that must be there for it to be recognised
OLD_NAMES = {"H": "h", "T": "min", "S": "s", "L": "ms", "BM": "BME"}  # as pandas < 2.2 wrote them
ANCHORED = {"W": "W", "M": "M", "Q": "Q", "Y": "Y", "A": "Y"}  # a family: the member is read off the stamps
EXAMPLES = "h, 15min, D, B, W, M, Q, Y, or 1 where time is counted in integers"


def infer(stamps: pd.Index, what: str) -> str:
    """The one frequency that the stamps keep, gaps allowed; an error where there is none or more than one."""
    stamps = stamps.unique().sort_values()
    if len(stamps) < FEWEST:
        raise VqtoolError(
            f"{what} has {len(stamps)} time stamps: too few to infer a frequency from",
            hint=f"a longer file, or --freq, as in {EXAMPLES}",
        )
    share = {freq: len(stamps) / len(grid) for freq in candidates(stamps) if (grid := fits(stamps, freq)) is not None}
    if max(share.values(), default=0) < COVERED and (hours := sessions.like(stamps)):
        return hours
    good = [freq for freq, covered in share.items() if covered >= COVERED]
    best = [freq for freq in good if share[freq] == max(share.values())]
    if len(best) == 1:
        return best[0]
    if best:
        raise VqtoolError(
            f"the stamps of {what} keep several frequencies: {', '.join(f'`{freq}`' for freq in best)}",
            hint=f"choose with --freq, as in --freq {best[0]}",
        )
    raise VqtoolError(
        f"the stamps of {what} keep no regular step",
        hint=f"--freq, as in {EXAMPLES}; to count the rows instead: -s 'data.time=#'",
    )


def candidates(stamps: pd.Index) -> list[str]:
    """Frequencies that the stamps might keep: their commonest fixed step, and calendars anchored at the first stamp."""
    if stamps.dtype.kind != "M":
        steps, counts = np.unique(np.diff(stamps.to_numpy()), return_counts=True)
        return [str(int(steps[counts.argmax()]))]
    steps, counts = np.unique(np.diff(stamps.asi8), return_counts=True)
    return list(
        dict.fromkeys([_fixed(stamps, int(steps[counts.argmax()])), "B", *(family(stamps, f) for f in "MQY"), "BME"])
    )


def _fixed(stamps: pd.Index, step: int) -> str:
    """A fixed step in the stamps' resolution as a frequency: weeks and days, or what divides them."""
    import pandas as pd

    size = pd.Timedelta(step, unit=stamps.unit)
    days = size / pd.Timedelta(days=1)
    if days == 7:
        return family(stamps, "W")
    return str(pd.tseries.frequencies.to_offset(f"{days:.0f}D" if days.is_integer() else size).freqstr)


def family(stamps: pd.Index, name: str) -> str:
    """The member of a family of calendars that the first stamp belongs to: `M` is `MS` or `ME`, `W` is `W-TUE`, ..."""
    first = stamps[0]
    if name == "W":
        return f"W-{first.day_name()[:3].upper()}"
    edge = "S" if first.day == 1 else "E"
    return f"M{edge}" if name == "M" else f"{name}{edge}-{first.month_name()[:3].upper()}"


def known(stamps: pd.Index) -> bool:
    """Whether the stamps keep a frequency."""
    try:
        infer(stamps, "")
    except VqtoolError:
        return False
    return True


def is_monthly(stamps: pd.Index, *, fewest: int = FEWEST) -> bool:
    """Whether there is at most one stamp in each month or quarter, most months or quarters have one, on any day."""
    if stamps.dtype.kind != "M" or len(stamps) < fewest:
        return False
    if fewest > 1 and max((stamps.day == 1).mean(), stamps.is_month_end.mean()) > 0.5:
        return False  # a stray stamp among others that are on a calendar
    steps = np.diff(stamps.year * 12 + stamps.month)
    return bool(len(steps) == 0 or ((steps > 0).all() and np.median(steps) in (1, 3, 12) and
                                    (steps % np.median(steps) == 0).all()))  # fmt: skip


def month_begins(stamps: pd.Index) -> pd.Index:
    """Each stamp's month, as its first day."""
    import pandas as pd

    return pd.DatetimeIndex(stamps.normalize() - pd.to_timedelta(stamps.day - 1, unit="D"))


def given(freq: str, stamps: pd.Index) -> str:
    """A user's frequency as pandas calls it; old names are understood, a family's member is read off the stamps."""
    freq = freq.strip()
    if sessions.is_one(freq):
        return freq
    if stamps.dtype.kind != "M":
        if freq.isdigit() and int(freq) > 0:
            return str(int(freq))
        raise VqtoolError(f"time is counted in integers, so `{freq}` is not a frequency of it", hint="--freq 1")
    unit = freq.lstrip("0123456789.")
    if unit == freq and unit in ANCHORED:
        return family(stamps, ANCHORED[unit])
    name = freq.removesuffix(unit) + OLD_NAMES.get(unit, unit)
    from pandas.tseries.frequencies import to_offset

    try:
        to_offset(name)
    except ValueError as error:
        raise VqtoolError(f"`{freq}` is not a frequency", hint=EXAMPLES) from error
    return name


def fits(stamps: pd.Index, freq: str) -> pd.Index | None:
    """The full calendar from the first stamp to the last if every stamp is on it, else None."""
    grid = between(stamps[0], stamps[-1], freq)
    return grid if len(grid) >= len(stamps) and stamps.isin(grid).all() else None


def between(first: Any, last: Any, freq: str) -> pd.Index:
    """All stamps of a calendar from `first` to `last`."""
    import pandas as pd

    if sessions.is_one(freq):
        return sessions.between(first, last, freq)

    if freq.isdigit():
        return pd.Index(np.arange(int(first), int(last) + 1, int(freq)))
    return pd.date_range(first, last, freq=freq)


def following(last: Any, freq: str, steps: int) -> pd.Index:
    """The `steps` stamps after `last`: calendar-true months, and days of local time where the stamps have a zone."""
    import pandas as pd

    if sessions.is_one(freq):
        return sessions.following(last, freq, steps)

    if freq.isdigit():
        return pd.Index(int(last) + int(freq) * np.arange(1, steps + 1))
    return pd.date_range(last, periods=steps + 1, freq=freq)[1:]


def kind(freq: str) -> str:
    """A frequency without its anchor: `W-TUE` and `W-SUN` are weeks, `MS` and `ME` months."""
    if sessions.is_one(freq):
        return freq
    plain = freq.split("-")[0]
    return {"MS": "M", "ME": "M", "QS": "Q", "QE": "Q", "YS": "Y", "YE": "Y"}.get(plain, plain)


def _count_and_kind(freq: str) -> tuple[int, str]:
    """`15min` is 15 of `min`, `W-TUE` one of `W`."""
    unit = freq.lstrip("0123456789")
    return int(freq.removesuffix(unit) or 1), kind(unit)


def season_of(freq: str) -> int:
    """Steps in the usual season: a day of anything finer than a day, a week of days, a year of the rest; 1 if none."""
    import pandas as pd

    if freq.isdigit():
        return 1
    if sessions.is_one(freq):
        return sessions.a_day(freq)
    many, unit = _count_and_kind(freq)
    whole = {"D": 7, "B": 5, "W": 52, "M": 12, "BME": 12, "BMS": 12, "Q": 4}
    if unit in whole:
        return whole[unit] // many if whole[unit] % many == 0 else 1
    try:
        step = pd.Timedelta(many, unit=unit)  # one of pandas' unit names
    except ValueError:
        return 1
    day = pd.Timedelta(days=1)
    return int(day // step) if step >= pd.Timedelta(minutes=1) and day % step == pd.Timedelta(0) else 1


def number(stamp: Any, freq: str) -> int:
    """Which stamp of its calendar this is, counted from 1970: the next stamp's number is one more.

    Days and longer steps are counted on the wall clock, shorter ones on the zone's standard time, which summer time
    does not move: so a stamp's number, and its place in a season, do not depend on where a file begins.
    """
    import pandas as pd

    if freq.isdigit():
        return int(stamp) // int(freq)
    if sessions.is_one(freq):
        return sessions.number(pd.Timestamp(stamp), freq)
    many, unit = _count_and_kind(freq)
    stamp = pd.Timestamp(stamp)
    months = {"M": 1, "BME": 1, "BMS": 1, "Q": 3, "Y": 12}
    wall = stamp.tz is None or unit in (*months, "B", "W", "D")
    stamp = stamp.tz_localize(None) if wall else standard_time(stamp)
    if unit in months:
        return int((12 * (stamp.year - 1970) + stamp.month - 1) // (months[unit] * many))
    if unit == "B":
        return int(np.busday_count("1970-01-01", stamp.date())) // many
    step = pd.Timedelta(days=7 * many) if unit == "W" else pd.Timedelta(many, unit=unit)
    return int((stamp - pd.Timestamp(0)) // step)


def standard_time(stamp: pd.Timestamp) -> pd.Timestamp:
    """A stamp with a zone on a clock that never jumps: that of the zone's winter of 2000."""
    import pandas as pd

    then = pd.Timestamp("2000-01-01", tz="UTC").tz_convert(stamp.tz)
    offset = pd.Timedelta(then.utcoffset()) - max(pd.Timedelta(then.dst() or 0), pd.Timedelta(0))
    return stamp.tz_convert("UTC").tz_localize(None) + offset
