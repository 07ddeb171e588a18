"""Calendars: what is inferred, what is refused, and which stamps come next."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtool.errors import VqtoolError
from vqtool_forecast import frequency, times

KNOWN = [
    "h",
    "4h",
    "15min",
    "10s",
    "D",
    "2D",
    "B",
    "W-TUE",
    "W-SUN",
    "MS",
    "ME",
    "QS-JAN",
    "QE-DEC",
    "YS-JAN",
    "YE-DEC",
]


@pytest.mark.parametrize("freq", KNOWN)
@pytest.mark.parametrize("rows", [12, 60])
def test_a_calendar_is_recognised_and_goes_on(freq: str, rows: int) -> None:
    stamps = pd.date_range("2019-11-05 00:00", periods=rows + 5, freq=freq)
    known = stamps[:rows]
    assert frequency.infer(known, "it") == freq
    assert list(frequency.following(known[-1], freq, 5)) == list(stamps[rows:])


@given(st.sampled_from(["h", "D", "MS", "W-WED"]), st.integers(0, 2**32 - 1))
def test_gaps_do_not_hide_a_calendar(freq: str, seed: int) -> None:
    stamps = pd.date_range("2020-01-01", periods=80, freq=freq)
    kept = stamps[1:-1].to_series().sample(60, random_state=seed).index.union([stamps[0], stamps[-1]])
    assert frequency.infer(kept, "it") == freq


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        (pd.date_range("2024-01-01", periods=5, freq="D"), "several frequencies: `D`, `B`"),  # Monday to Friday
        (pd.date_range("2021-07-01", periods=3, freq="MS"), "too few"),
        (pd.to_datetime(["2020-01-01", "2020-01-02", "2020-02-20", "2020-07-07", "2020-07-09"]), "no regular step"),
        (pd.Index([1, 2, 40, 70]), "no regular step"),
    ],
)
def test_what_is_not_plain_is_not_guessed(stamps: pd.Index, message: str) -> None:
    with pytest.raises(VqtoolError, match=message) as caught:
        frequency.infer(stamps, "series `a`")
    assert "--freq" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("freq", "last", "expected"),
    [
        ("ME", "2024-01-31", ["2024-02-29", "2024-03-31"]),
        ("ME", "2023-01-31", ["2023-02-28", "2023-03-31"]),
        ("D", "2024-02-28", ["2024-02-29", "2024-03-01"]),
        ("D", "2023-02-28", ["2023-03-01", "2023-03-02"]),
        ("QE-DEC", "2023-12-31", ["2024-03-31", "2024-06-30"]),
        ("W-TUE", "2024-12-31", ["2025-01-07", "2025-01-14"]),
        ("B", "2024-03-01", ["2024-03-04", "2024-03-05"]),
        ("YS-JAN", "2023-01-01", ["2024-01-01", "2025-01-01"]),
    ],
)
def test_the_next_stamps_are_true_to_the_calendar(freq: str, last: str, expected: list[str]) -> None:
    assert times.written(frequency.following(pd.Timestamp(last), freq, 2), clock=False) == expected


def test_summer_time() -> None:
    berlin = "Europe/Berlin"
    days = frequency.following(pd.Timestamp("2024-03-30", tz=berlin), "D", 2)
    assert times.written(days, True) == ["2024-03-31 00:00:00+01:00", "2024-04-01 00:00:00+02:00"]  # midnight stays
    hours = frequency.following(pd.Timestamp("2024-03-31 01:00", tz=berlin), "h", 2)
    assert times.written(hours, True) == ["2024-03-31 03:00:00+02:00", "2024-03-31 04:00:00+02:00"]
    assert frequency.infer(pd.date_range("2024-03-20", periods=30, freq="D", tz=berlin), "it") == "D"
    assert frequency.infer(pd.date_range("2024-10-26", periods=48, freq="h", tz=berlin), "it") == "h"


def test_names_that_a_user_may_give() -> None:
    months, ends = (pd.date_range("2020-01-01", periods=9, freq=freq) for freq in ("MS", "ME"))
    assert [frequency.given("M", s) for s in (months, ends)] == ["MS", "ME"]
    assert frequency.given("W", pd.date_range("2024-01-02", periods=5, freq="7D")) == "W-TUE"
    assert [frequency.given(f, months) for f in ("H", "15T", "D")] == ["h", "15min", "D"]
    assert frequency.given("1", pd.Index([1, 2])) == "1"
    for freq, stamps in (("hourly", months), ("h", pd.Index([1, 2])), ("0", pd.Index([1, 2]))):
        with pytest.raises(VqtoolError, match="not a frequency"):
            frequency.given(freq, stamps)


def test_seasons() -> None:
    frequencies = ("h", "15min", "4h", "10min", "D", "B", "W-TUE", "MS", "QS-JAN", "YS-JAN", "1", "10s", "7h")
    result = {freq: frequency.season_of(freq) for freq in frequencies}
    assert result == {"h": 24, "15min": 96, "4h": 6, "10min": 144, "D": 7, "B": 5, "W-TUE": 52, "MS": 12, "QS-JAN": 4,
                    "YS-JAN": 1, "1": 1, "10s": 1, "7h": 1}  # fmt: skip
