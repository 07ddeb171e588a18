"""Calendars of business hours: `60min 09:00-16:00 MON-FRI`, a step within the same hours of the same days."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
FORM = re.compile(r"(\d+)min (\d\d):(\d\d)-(\d\d):(\d\d) ([A-Z]{3})-([A-Z]{3})")
FEWEST, COVERED = 2, 0.7  # days that are looked at; the share of the hours that must be there


class Hours(NamedTuple):
    """Minutes of a step, the first and the last stamp of a day, the first and the last day of a week."""

    step: int
    opens: int
    closes: int
    first: int
    last: int

    @property
    def slots(self) -> int:
        """Stamps in a day."""
        return (self.closes - self.opens) // self.step + 1

    @property
    def days(self) -> int:
        """Days in a week."""
        return self.last - self.first + 1

    def __str__(self) -> str:
        clock = "-".join(f"{m // 60:02d}:{m % 60:02d}" for m in (self.opens, self.closes))
        return f"{self.step}min {clock} {DAYS[self.first]}-{DAYS[self.last]}"


def is_one(freq: str) -> bool:
    """Whether a frequency is one of business hours."""
    return bool(FORM.fullmatch(freq))


def read(freq: str) -> Hours:
    """The hours that a frequency names."""
    found = FORM.fullmatch(freq)
    assert found is not None
    step, a, b, c, d = (int(part) for part in found.groups()[:5])
    return Hours(step, 60 * a + b, 60 * c + d, DAYS.index(found[6]), DAYS.index(found[7]))


def like(stamps: pd.Index) -> str | None:
    """The business hours that the stamps keep; None where they keep none."""
    if stamps.dtype.kind != "M":
        return None
    minutes = stamps.hour * 60 + stamps.minute
    days = stamps.normalize().nunique()
    if days < FEWEST or (stamps.second != 0).any():
        return None
    steps, counts = np.unique(np.diff(minutes.to_numpy())[np.diff(stamps.normalize().asi8) == 0], return_counts=True)
    if not len(steps) or steps[counts.argmax()] <= 0:
        return None
    hours = Hours(int(steps[counts.argmax()]), int(minutes.min()), int(minutes.max()), int(stamps.dayofweek.min()),
                  int(stamps.dayofweek.max()))  # fmt: skip
    if ((minutes - hours.opens) % hours.step != 0).any() or hours.slots < 2:
        return None
    grid = between(stamps[0], stamps[-1], str(hours))
    return str(hours) if len(stamps) >= COVERED * len(grid) and stamps.isin(grid).all() else None


def between(first: Any, last: Any, freq: str) -> pd.Index:
    """All stamps of the calendar from `first` to `last`."""
    import pandas as pd

    hours = read(freq)
    days = pd.date_range(first.normalize(), last.normalize(), freq="D")
    days = days[(days.dayofweek >= hours.first) & (days.dayofweek <= hours.last)]
    clock = pd.to_timedelta(hours.opens + hours.step * np.arange(hours.slots), unit="min")
    wall = days.tz_localize(None)
    flat = (wall.to_numpy()[:, None] + clock.to_numpy()[None]).ravel()
    grid = pd.DatetimeIndex(flat)
    grid = grid if first.tz is None else grid.tz_localize(first.tz)
    return grid[(grid >= first) & (grid <= last)]


def following(last: Any, freq: str, steps: int) -> pd.Index:
    """The `steps` stamps after `last`."""
    import pandas as pd

    hours = read(freq)
    weeks = steps // (hours.slots * hours.days) + 2
    return between(last, last + pd.Timedelta(weeks=weeks), freq)[1 : steps + 1]


def a_day(freq: str) -> int:
    """Stamps in a day: the season."""
    return read(freq).slots


def number(stamp: pd.Timestamp, freq: str) -> int:
    """Which stamp of the calendar this is, counted from 1970."""
    hours = read(freq)
    wall = stamp.tz_localize(None)
    weeks, day = divmod(wall.toordinal() - 1, 7)  # ordinal 1 was a Monday
    epoch = 719163 // 7 * hours.days
    days = weeks * hours.days + day - hours.first - epoch
    return days * hours.slots + (wall.hour * 60 + wall.minute - hours.opens) // hours.step
