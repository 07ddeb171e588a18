"""Tables as meters, banks, offices and agencies write them: each is read rightly, at once or after its hints."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.forecast.test_series_as_they_come import DAYS, HOURS, MONTHS, VALUES, WEEKS, N, followed, is_right, read
from vqtool.errors import VqtoolError
from vqtool_forecast.columns import ReadOptions
from vqtool_forecast.read_series import read_series

QUARTERS = pd.date_range("1950-01-01", periods=N, freq="QS")
HALF = pd.Timedelta("30min")
COUNTED = np.arange(1, N + 1)


def rows(names: str, cells: Any, end: str = "") -> str:
    """A header, and a line for each time with the cells that `cells` writes of it and of its value."""
    return "\n".join([names, *cells]) + "\n" + end


def each(times: Any, write: Any, values: Any = VALUES) -> list[str]:
    return [write(t, v) for t, v in zip(times, values, strict=True)]


DAYWISE = each(DAYS, lambda t, v: f"{t:%Y-%m-%d},{v}")
GROUPED = each(DAYS, lambda t, v: f"{t:%Y-%m-%d},{v},{2 * v},{v},{2 * v}")
ONCE: dict[str, tuple[str, Any, Any, str]] = {  # text, times, values, and a note
    "beginning and end": (
        rows("Von;Bis;kWh", each(HOURS, lambda t, v: f"{t:%d.%m.%Y %H:%M};{t + HALF:%d.%m.%Y %H:%M};{v}")),
        HOURS,
        VALUES,
        "",
    ),
    "date, beginning, end": (
        rows("Datum;von;bis;kWh", each(HOURS, lambda t, v: f"{t:%d.%m.%Y};{t:%H:%M};{t + HALF:%H:%M};{v}")),
        HOURS,
        VALUES,
        "`bis` is the end of each interval",
    ),
    "am and pm": (
        rows("Usage Date,Start Time,kWh", each(HOURS, lambda t, v: f"{t:%m/%d/%Y},{t:%I:%M %p},{v}")),
        HOURS,
        VALUES,
        "times from",
    ),
    "an interval a cell": (
        rows("Time,MW", each(HOURS, lambda t, v: f"{t:%d.%m.%Y %H:%M} - {t + HALF:%d.%m.%Y %H:%M},{v}")),
        HOURS,
        VALUES,
        "`Time` holds intervals like",
    ),
    "above a preamble": (
        "Name,J. Doe\nAccount,1\n\n"
        + rows(
            "TYPE,DATE,START TIME,END TIME,USAGE",
            each(HOURS, lambda t, v: f"use,{t:%Y-%m-%d},{t:%H:%M},{t + HALF:%H:%M},{v}"),
        ),
        HOURS,
        VALUES,
        "2 lines before the table",
    ),
    "year and Q1": (
        rows("Year,Qtr,GDP", each(QUARTERS, lambda t, v: f"{t.year},Q{t.quarter},{v}")),
        QUARTERS,
        VALUES,
        "times from",
    ),
    "year and March": (
        rows("Year,Month,n", each(MONTHS, lambda t, v: f"{t.year},{t:%B},{v}")),
        MONTHS,
        VALUES,
        "times from",
    ),
    "year and week": (
        rows("year,week,v", each(WEEKS, lambda t, v: f"{t.isocalendar()[0]},{t.isocalendar()[1]},{v}")),
        WEEKS,
        VALUES,
        "times from",
    ),
    "year and day": (
        rows("year,doy,v", each(DAYS, lambda t, v: f"{t.year},{t.day_of_year},{v}")),
        DAYS,
        VALUES,
        "times from",
    ),
    "parts and hours": (
        rows("YEAR,MO,DY,HR,T", each(HOURS, lambda t, v: f"{t.year},{t.month},{t.day},{t.hour},{v}")),
        HOURS,
        VALUES,
        "times from",
    ),
    "whole date and hour": (
        rows("YYYYMMDD,HH,T", each(HOURS, lambda t, v: f"{t:%Y%m%d},{t.hour},{v}")),
        HOURS,
        VALUES,
        "times from",
    ),
    "labour statistics": (
        rows(
            "Series ID,Year,Period,Value",
            [
                line
                for line in each(MONTHS, lambda t, v: f"L,{t.year},M{t.month:02d},{v}")
                for line in ([line, f"L,{line[2:6]},M13,9"] if ",M12," in line else [line])
            ],
        ),
        MONTHS,
        VALUES,
        "33 rows of yearly means",
    ),
    "gretl's quarters": (
        rows("obs,v", each(QUARTERS, lambda t, v: f"{t.year}:{t.quarter},{v}")),
        QUARTERS,
        VALUES,
        "`obs` read as quarters",
    ),
    "gretl's months": (
        rows("obs,v", each(MONTHS, lambda t, v: f"{t.year}:{t.month:02d},{v}")),
        MONTHS,
        VALUES,
        "`obs` read as months",
    ),
    "weeks as numbers": (
        rows("week,v", each(WEEKS, lambda t, v: f"{t:%G%V},{v}")),
        WEEKS,
        VALUES,
        "`week` read as ISO weeks",
    ),
    "days of Excel": (
        rows("Date,v", each(DAYS, lambda t, v: f"{(t - pd.Timestamp('1899-12-30')).days},{v}")),
        DAYS,
        VALUES,
        "`Date` read as days as",
    ),
    "seconds": (
        rows("seconds,v", each(range(N), lambda t, v: f"{10 * t},{v}")),
        10 * np.arange(N),
        VALUES,
        "frequency `10`",
    ),
    "parts of seconds": (
        rows("t [s],v", each(range(N), lambda t, v: f"{t / 100:.2f},{v}")),
        COUNTED,
        VALUES,
        "`t [s]` rises in steps of 0.01",
    ),
    "midnights without a clock": (
        rows("date,v", each(HOURS, lambda t, v: f"{t:%d.%m.%Y}{'' if t.hour == 0 else f' {t:%H:%M}'},{v}")),
        HOURS,
        VALUES,
        "",
    ),
    "a total": (
        rows("Date,v", DAYWISE, f"Total,{VALUES.sum()}\n"),
        DAYS,
        VALUES,
        "1 rows after the data left out, like `Total`",
    ),
    "a source": (
        rows("Date,v", DAYWISE, "\nSource: the bank, 2024-01-01\n"),
        DAYS,
        VALUES,
        "1 rows after the data left out, like `Source",
    ),
    "names in a comment": (rows("#date,v", DAYWISE), DAYS, VALUES, "frequency"),
    "groups of columns": (
        rows(",North,,South,\nDate,Sales,Cost,Sales,Cost", GROUPED),
        DAYS,
        VALUES,
        "names from the first 2 lines",
    ),
    "three lines of names": (
        rows("Price,Close,Close,Open,Open\nTicker,A,B,A,B\nDate,,,,", GROUPED),
        DAYS,
        VALUES,
        "names from the first 3 lines",
    ),
    "a minus behind": (
        rows("Date,v", each(DAYS, lambda t, v: f"{t:%Y-%m-%d},{v}-")),
        DAYS,
        -VALUES,
        "`v`: 400 numbers with a minus behind",
    ),
    "lakhs": (
        rows("Date,v", each(DAYS, lambda t, v: f'{t:%Y-%m-%d},"12,34,{100 + v:.0f}.50"')),
        DAYS,
        1234100.5 + np.round(VALUES),
        "thousands",
    ),
    "months across": (
        rows(
            "Year,Jan,Feb,Mar,Apr,May,Jun,Jul,Aug,Sep,Oct,Nov,Dec,Annual",
            [f"{1990 + k}," + ",".join(map(str, VALUES[12 * k : 12 * k + 12])) + ",0" for k in range(33)],
        ),
        MONTHS[:396],
        VALUES[:396],
        "read as a row for each year",
    ),
    "hours across": (
        rows(
            "Date," + ",".join(f"H{h:02d}" for h in range(1, 25)),
            [f"2023-01-{k + 1:02d}," + ",".join(map(str, VALUES[24 * k : 24 * k + 24])) for k in range(16)],
        ),
        HOURS[:384],
        VALUES[:384],
        "read as a row for each day",
    ),
    "days across": (
        "Province,Country,Lat,"
        + ",".join(f"{t.month}/{t.day}/{t:%y}" for t in DAYS)
        + "\n"
        + "\n".join(f"{place},1.5," + ",".join(map(str, VALUES)) for place in (",France", "North,China", "South,China"))
        + "\n",
        DAYS,
        VALUES,
        "read as a row for each series: 3",
    ),
}


@pytest.mark.parametrize("kind", ONCE)
def test_what_is_read_at_once(tmp_path: Path, kind: str) -> None:
    text, times, values, noted = ONCE[kind]
    found = read(tmp_path, text)
    if isinstance(times, np.ndarray):
        assert list(found.series[0].stamps) == list(times)
        np.testing.assert_allclose(found.series[0].values, values)
    else:
        is_right(found, times, values)
    assert any(note.startswith(noted) for note in found.notes), found.notes


def test_24_series_are_not_the_hours_of_a_day(tmp_path: Path) -> None:
    names = ",".join(["date", *(f"s{k}" for k in range(1, 25))])
    found = read(tmp_path, rows(names, each(DAYS, lambda t, v: f"{t:%Y-%m-%d}" + f",{v}" * 24)))
    assert len(found.series) == 24
    is_right(found, DAYS)


SHUFFLED = np.random.default_rng(0).permutation(N)
STORES = [f"{t:%Y-%m-%d},{s},{i},{v + s + 10 * i:.2f}" for s in (1, 2) for i in (1, 2)
          for t, v in zip(DAYS, VALUES, strict=True)]  # fmt: skip
AFTER: dict[str, tuple[str, Any, Any]] = {
    "ids in two columns": (rows("date,store,item,sold", STORES), DAYS, VALUES + 11),
    "whole ids": (
        rows(
            "Store,DayOfWeek,Date,Sales",
            [f"{s},{t.day_of_week},{t:%Y-%m-%d},{v}" for s in (1, 2) for t, v in zip(DAYS, VALUES, strict=True)],
        ),
        DAYS,
        VALUES,
    ),
    "unsorted": (rows("date,v", [DAYWISE[i] for i in SHUFFLED]), DAYS, VALUES),
    "repeated": (rows("date,v", [*DAYWISE[:9], DAYWISE[8], *DAYWISE[9:]]), DAYS, VALUES),
    "no names": ("\n".join(DAYWISE), DAYS, VALUES),
    "no names and no times": ("\n".join(f"{v},{2 * v}" for v in VALUES), COUNTED, VALUES),
    "one column": (rows("load", map(str, VALUES)), COUNTED, VALUES),
    "one column without a name": ("\n".join(map(str, VALUES)), COUNTED, VALUES),
    "versions are no times": (rows("browser,share", each(range(N), lambda t, v: f"Chrome {t}.0,{v}")), COUNTED, VALUES),
}


@pytest.mark.parametrize("kind", AFTER)
def test_what_is_read_after_the_hints(tmp_path: Path, kind: str) -> None:
    text, times, values = AFTER[kind]
    found, refused = followed(tmp_path, text)
    assert 1 <= len(refused) <= 2, refused
    if isinstance(times, np.ndarray):
        assert list(found.series[0].stamps) == list(times)
        np.testing.assert_allclose(found.series[0].values, values)
    else:
        is_right(found, times, values)


def test_what_repeats_is_joined_as_asked(tmp_path: Path) -> None:
    text = rows("date,v", [*DAYWISE, f"{DAYS[-1]:%Y-%m-%d},{VALUES[-1] + 2}"])
    for how, last in (("first", 0), ("last", 2), ("mean", 1), ("sum", VALUES[-1] + 2)):
        found = read(tmp_path, text, repeated=how)
        is_right(found, DAYS, [*VALUES[:-1], VALUES[-1] + last])
        assert f"1 rows of times that were there already joined ({how})" in found.notes


def test_words_for_missing_values_are_missing(tmp_path: Path) -> None:
    words = {50: "n.a.", 60: "missing", 70: "#DIV/0!", 80: "NULL"}
    text = rows(
        "date,v", [f"{t:%Y-%m-%d},{words.get(i, v)}" for i, (t, v) in enumerate(zip(DAYS, VALUES, strict=True))]
    )
    with pytest.raises(VqtoolError, match=r"row 51 .* has no value \(4 such rows\)"):
        read(tmp_path, text)
    assert "4 missing values filled (ffill)" in read(tmp_path, text, fill="ffill").notes


@pytest.mark.parametrize(("letters", "zone"), [("UTC", "+00:00"), ("CET", "+01:00"), ("EST", "-05:00")])
def test_letters_of_a_zone_are_its_offset(tmp_path: Path, letters: str, zone: str) -> None:
    found = read(tmp_path, rows("time,v", each(HOURS, lambda t, v: f"{t:%Y-%m-%d %H:%M} {letters},{v}")))
    assert list(found.series[0].stamps) == list(HOURS.tz_localize(zone))
    assert f"`time`: the zone {letters} as {zone}" in found.notes


SHEETS: dict[str, list[list[Any]]] = {
    "a title": [["Monthly report"], [], ["Date", "Sales"]],
    "units": [["Date", "Sales"], [None, "kW"]],
    "groups": [["", "North", "", "South"], ["Date", "Sales", "Cost", "Sales"]],
    "empty columns before": [[None, None], [None, None, "Date", "Sales"]],
}


@pytest.mark.parametrize("kind", SHEETS)
def test_sheets_of_a_workbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """What calamine gives of one: cells, without any idea of a header."""
    begin = len(SHEETS[kind][-1]) - 2 if kind == "empty columns before" else 0
    more = len(SHEETS[kind][-1]) - 2 - begin
    cells = [[None] * begin + [t.to_pydatetime(), v] + [v] * more for t, v in zip(DAYS, VALUES, strict=True)]
    whole = pd.DataFrame([*SHEETS[kind], *cells, [None] * begin + ["Total", 1.0]])
    monkeypatch.setattr(pd, "read_excel", lambda *_, **__: {"cover": pd.DataFrame([["by me"]]), "one": whole})
    (tmp_path / "it.xlsx").touch()
    found = read_series(tmp_path / "it.xlsx", ReadOptions())
    is_right(found, DAYS)
    assert "sheet `one` of 2" in found.notes
    assert "1 rows after the data left out, like `Total`" in found.notes


def test_dates_and_periods_of_parquet(tmp_path: Path) -> None:
    for index, times in ((MONTHS.to_period("M"), MONTHS), (pd.Index([t.date() for t in DAYS], name="day"), DAYS)):
        pd.DataFrame({"v": VALUES}, index=index).to_parquet(tmp_path / "it.parquet")
        is_right(read_series(tmp_path / "it.parquet", ReadOptions()), times)


def test_json_as_pandas_writes_it(tmp_path: Path) -> None:
    content = io.StringIO()
    pd.DataFrame({"date": HOURS.strftime("%Y-%m-%d %H:%M"), "v": VALUES}).to_json(content)
    assert set(json.loads(content.getvalue())) == {"date", "v"}
    is_right(read(tmp_path, content.getvalue(), "it.json"))
