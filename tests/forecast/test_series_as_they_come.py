"""Files as people have them: each kind is read rightly, or refused by an error whose hint, followed, leads there."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vqtool.errors import VqtoolError
from vqtool_forecast import frequency, outliers
from vqtool_forecast.columns import ReadOptions
from vqtool_forecast.read_series import Reading, read_series

N = 400
HOURS = pd.date_range("2023-01-01", periods=N, freq="h")
DAYS = pd.date_range("2020-01-01", periods=N, freq="D")
MONTHS = pd.date_range("1990-01-01", periods=N, freq="MS")
VALUES = np.round(100 + 10 * np.sin(np.arange(N) * 2 * np.pi / 24) + np.random.default_rng(0).standard_normal(N), 2)


def table(names: str, times: Any = HOURS, values: Any = VALUES, sep: str = ",") -> str:
    """A table of times and values under the names given."""
    return names + "\n" + "\n".join(f"{t}{sep}{v}" for t, v in zip(times, values, strict=True))


def read(folder: Path, text: str | bytes, name: str = "it.csv", **how: Any) -> Reading:
    """What is read of a file with this text."""
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_series(folder / name, ReadOptions(**how))


def followed(folder: Path, text: str | bytes, name: str = "it.csv") -> tuple[Reading, list[str]]:
    """What is read when every hint is followed, the first of two ways; and what was refused before."""
    how: dict[str, Any] = {}
    refused = []
    for _ in range(4):
        try:
            return read(folder, text, name, **how), refused
        except VqtoolError as error:
            refused.append(error.message)
            hint = error.hint or ""
            asked = re.findall(r"-s '?data\.(\w+)=(?:\"([^\"]*)\"|([^\s';]+))", hint)
            found = {key: quoted or bare for key, quoted, bare in reversed(asked) if quoted != "..."}
            found |= {key: value == "true" for key, value in found.items() if value in ("true", "false")}
            if "--fill ffill" in hint:
                found = {"fill": "ffill"}
            if not found:
                raise
            how |= found
    raise AssertionError(f"the hints go round in circles: {refused}")


def is_right(found: Reading, times: Any = HOURS, values: Any = VALUES) -> None:
    """The first series has these times and values."""
    np.testing.assert_allclose(found.series[0].values, values)
    assert list(found.series[0].stamps.tz_localize(None)) == list(times)


@pytest.mark.parametrize(("text", "encoding", "noted", "name"), [
    ("größe °C", "latin-1", "encoding `cp1252`", "größe °C"),
    ("größe", "utf-16", "encoding `utf-16`", "größe"),
    ("size", "utf-16-le", "encoding `utf-16-le`", "size"),
    ("größe", "utf-8-sig", "frequency `h`", "größe"),
    ("температура воздуха", "cp1251", "encoding `cp1251`", "температура воздуха"),
])  # fmt: skip
def test_encodings(tmp_path: Path, text: str, encoding: str, noted: str, name: str) -> None:
    content = table(f"ds,{text}").encode(encoding)
    found = read(tmp_path, content)
    is_right(found)
    assert found.series[0].id == name
    assert any(noted in note for note in found.notes)
    assert read(tmp_path, content, encoding=encoding).series[0].id == name


def test_an_encoding_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="there is no encoding `klingon`"):
        read(tmp_path, table("ds,y"), encoding="klingon")


SHAPES = [
    ("sep=;\n" + table("ds;y", sep=";"), "columns separated by `;`, as the first line says"),
    (table("ds|y", sep="|"), "columns separated by bars"),
    (table("ds y", HOURS.strftime("%Y-%m-%dT%H:%M"), sep=" "), "columns separated by blanks"),
    (table("ds y", sep="  "), "times from the columns `ds`, `clock`"),
    (table("ds,y,", values=[f"{v}," for v in VALUES]), "1 empty column without a name left out"),
    (table("ds,y", values=[f"{v}," for v in VALUES]), "every line of data ends with a separator"),
    ("A table of the station\n\nby the owner\n" + table("ds,y,z", values=[f"{v},1" for v in VALUES]), "2 lines before"),
    ("time,load\n,MW\n" + table("", values=VALUES).lstrip(), "the second line has units, not values: `MW`"),
    ("time;load\n[UTC];[kW]\n" + table("", sep=";").lstrip(), "the second line has units, not values: `[UTC]`, `[kW]`"),
]


@pytest.mark.parametrize(("text", "noted"), SHAPES, ids=[noted[:30] for _, noted in SHAPES])
def test_shapes_of_text(tmp_path: Path, text: str, noted: str) -> None:
    found = read(tmp_path, text)
    is_right(found)
    assert any(note.startswith(noted) for note in found.notes), found.notes


def test_a_header_that_is_data_is_refused(tmp_path: Path) -> None:
    text = table("").lstrip()
    with pytest.raises(
        VqtoolError, match=f"first line is data, not the columns' names: `{HOURS[0]},{VALUES[0]}`"
    ) as caught:
        read(tmp_path, text)
    names = str(caught.value.hint).split("before it: ")[1]
    is_right(read(tmp_path, text, header=False))
    is_right(read(tmp_path, f"{names}\n{text}"))
    assert (
        len(read(tmp_path, table("date,1,2", values=[f"{v},1" for v in VALUES])).series) == 2
    )  # names that are numbers


QUARTERS = pd.date_range("1900-01-01", periods=N, freq="QS")
WEEKS = pd.date_range("2015-01-05", periods=N, freq="W-MON")
LATE = [f"{t - pd.Timedelta(hours=1):%Y-%m-%d} 24:00" if t.hour == 0 else f"{t:%Y-%m-%d %H:%M}" for t in HOURS]
FORMS = [
    (DAYS.strftime("%Y%m%d"), DAYS, "dates (yyyymmdd)"),
    (MONTHS.strftime("%Y%m"), MONTHS, "months (yyyymm)"),
    (HOURS.strftime("%Y%m%d%H"), HOURS, "dates and hours (yyyymmddhh)"),
    (range(1600, 1600 + N), pd.date_range("1600-01-01", periods=N, freq="YS", unit="s"), "years"),
    (HOURS.astype("datetime64[s]").astype(np.int64), HOURS, "s since 1970"),
    (HOURS.astype("datetime64[ms]").astype(np.int64), HOURS, "ms since 1970"),
    (QUARTERS.to_period("Q").astype(str), QUARTERS, "quarters"),
    ([f"Q{t.quarter} {t.year}" for t in QUARTERS], QUARTERS, "quarters"),
    ([f"{t.year + (t.month - 1) / 12:.3f}" for t in MONTHS], MONTHS, "months as parts of a year"),
    ([f"{t:%Y %b}" for t in MONTHS], MONTHS, "months"),
    ([f"{t:%G-W%V}" for t in WEEKS], WEEKS, "ISO weeks"),
]


@pytest.mark.parametrize(("written", "times", "called"), FORMS, ids=[called for _, _, called in FORMS])
def test_forms_of_times(tmp_path: Path, written: Any, times: pd.DatetimeIndex, called: str) -> None:
    found = read(tmp_path, table("date,v", written))
    is_right(found, times)
    assert f"`date` read as {called}" in found.notes


def test_24_o_clock(tmp_path: Path) -> None:
    found = read(tmp_path, table("date,v", LATE))
    is_right(found)
    assert "17 times of 24:00 read as 0:00 of the next day" in found.notes


def test_months_on_any_day(tmp_path: Path) -> None:
    days = np.random.default_rng(1).integers(5, 25, N)
    found = read(tmp_path, table("date,v", [f"{t:%Y-%m}-{day:02d}" for t, day in zip(MONTHS, days, strict=True)]))
    is_right(found, MONTHS)
    assert found.notes[0].startswith("one value a month, stamped on days like 1990-01-")


def test_descending_files_are_turned_round(tmp_path: Path) -> None:
    found = read(tmp_path, table("date,v", HOURS[::-1], VALUES[::-1]))
    is_right(found)
    assert "the rows of 1 series descend in time and are read from the last to the first" in found.notes


APART = [
    ("Date,Hour,v", [f"{t:%Y-%m-%d},{t.hour}" for t in HOURS]),
    ("Date,Hour,v", [f"{t - pd.Timedelta(hours=1):%Y-%m-%d},{(t.hour - 1) % 24 + 1}" for t in HOURS]),  # 1 to 24
    ("Date,Time,v", [f"{t:%d.%m.%Y},{t:%H:%M:%S}" for t in HOURS]),
    ("year,month,day,hour,v", [f"{t.year},{t.month},{t.day},{t.hour}" for t in HOURS]),
]


@pytest.mark.parametrize(("names", "times"), APART, ids=["hour", "hour to 24", "clock", "parts"])
def test_times_in_several_columns(tmp_path: Path, names: str, times: list[str]) -> None:
    found = read(tmp_path, table(names, times))
    is_right(found)
    parts = ", ".join(f"`{name}`" for name in names.split(",")[:-1])
    assert f"times from the columns {parts}" in found.notes


@pytest.mark.parametrize(("begin", "zone"), [("2023-03-20", "Europe/Berlin"), ("2023-10-25", "Europe/Berlin"),
                                             ("2023-10-30", "America/New_York")])  # fmt: skip
def test_a_local_clock_over_summer_time_asks_for_its_zone_at_once(tmp_path: Path, begin: str, zone: str) -> None:
    local = pd.date_range(begin, periods=N, freq="h", tz=zone)
    found, refused = followed(tmp_path, table("date,v", local.tz_localize(None)))
    assert len(refused) == 1
    assert list(found.series[0].stamps) == list(local)


def test_dates_that_can_be_read_in_two_ways_name_the_one_that_is_regular(tmp_path: Path) -> None:
    times = HOURS[:240]
    found, refused = followed(tmp_path, table("date,v", times.strftime("%d/%m/%Y %H:%M"), VALUES[:240]))
    is_right(found, times, VALUES[:240])
    assert refused == ["dates like `01/01/2023 00:00` may have the day or the month first"]
    found, refused = followed(tmp_path, table("date,v", MONTHS.strftime("%m/%d/%y")[:120], VALUES[:120]))
    is_right(found, MONTHS[:120], VALUES[:120])


def test_business_hours_stay_business_hours(tmp_path: Path) -> None:
    every = pd.date_range("2023-01-02 09:30", periods=3000, freq="30min")
    minutes = every.hour * 60 + every.minute
    open_ = every[(every.dayofweek < 5) & (minutes >= 570) & (minutes <= 960)][:N]
    found = read(tmp_path, table("date,v", open_))
    is_right(found, open_)
    assert found.freq == "30min 09:30-16:00 MON-FRI"
    ahead = frequency.following(open_[-1], found.freq, 20)
    assert all(t.weekday() < 5 and 570 <= t.hour * 60 + t.minute <= 960 for t in ahead)
    assert frequency.number(ahead[-1], found.freq) - frequency.number(open_[0], found.freq) == N - 1 + 20
    assert frequency.season_of(found.freq) == 14


BIG = VALUES * 100 + 0.25
CELLS = [
    ([f'"{v:,.2f}"' for v in BIG], ",", BIG, "thousands marked by `,` in 1 columns"),
    ([f"{v:,.2f}".translate(str.maketrans(",.", ".,")) for v in BIG], ";", BIG, "thousands marked by `.` in 1 columns"),
    ([f'"${v:,.2f}"' for v in BIG], ",", BIG, "`v`: the sign $ taken off 400 numbers"),
    ([f"{v}%" for v in VALUES], ",", VALUES, "`v`: the sign % taken off 400 numbers"),
    ([f"{v:.2f} €".replace(".", ",") for v in BIG], ";", BIG, "`v`: the sign € taken off 400 numbers"),
    ([f"{v:,.2f}".replace(",", "'") for v in BIG], ",", BIG, "frequency"),
    ([f"{v:,.2f}".replace(",", "\u00a0").replace(".", ",") for v in BIG], ";", BIG, "numbers with a decimal comma"),
    ([f'"({v:,.2f})"' for v in BIG], ",", -BIG, "`v`: 400 numbers in brackets read as negative"),
]


@pytest.mark.parametrize(("cells", "sep", "values", "noted"), CELLS, ids=[cells[0] for cells, *_ in CELLS])
def test_numbers_as_people_write_them(tmp_path: Path, cells: list[str], sep: str, values: Any, noted: str) -> None:
    found = read(tmp_path, table(f"date{sep}v", values=cells, sep=sep))
    is_right(found, values=values)
    assert any(note.startswith(noted) for note in found.notes), found.notes


TWO_WAYS = [
    ([f"{round(v)}" if i % 3 else f"1.{round(v):03d}" for i, v in enumerate(VALUES)], ";", "."),
    ([f'"{round(v):,d}"' for v in BIG], ",", ","),
    ([f"{round(v):,d}".replace(",", ".") for v in BIG], ";", "."),
]


@pytest.mark.parametrize(("cells", "sep", "mark"), TWO_WAYS, ids=["mixed", "commas", "points"])
def test_numbers_that_can_be_read_in_two_ways_are_refused_with_both(
    tmp_path: Path, cells: list[str], sep: str, mark: str
) -> None:
    text = table(f"date{sep}v", values=cells, sep=sep)
    with pytest.raises(VqtoolError, match=r"may be \d+ or \d+\.\d+") as caught:
        read(tmp_path, text)
    other = "," if mark == "." else "."
    for decimal, thousands in ((other, ""), (mark, ".")):
        assert f'-s data.decimal="{decimal}" reads' in str(caught.value.hint)
        right = [float(cell.strip('"').replace(mark, thousands)) for cell in cells]
        is_right(read(tmp_path, text, decimal=decimal), values=right)


def test_values_whose_squares_overflow_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match=r"series `v`: 1.1\d*e\+302 in row \d+ is too large: its square overflows"):
        read(tmp_path, table("date,v", values=VALUES * 1e300))


NAMES = [("item_id", "timestamp", "target"), ("Ticker", "Date", "Close"), ("symbol", "date", "price")]


@pytest.mark.parametrize("names", NAMES, ids=["gluonts", "stocks", "symbol"])
def test_names_that_people_use(tmp_path: Path, names: tuple[str, str, str]) -> None:
    rows = [f"{name},{t}" for name in ("01", "1", "NA") for t in HOURS]
    found = read(tmp_path, table(",".join(names), rows, [*VALUES] * 3))
    assert [one.id for one in found.series] == ["01", "1", "NA"]
    is_right(found)
    result = "read as a long file: ids in `{}`, times in `{}`, values in `{}`".format(*names)
    assert result in found.notes


def test_other_names_are_hinted_at_whole(tmp_path: Path) -> None:
    rows = [f"{name},{t}" for name in ("north", "south") for t in HOURS]
    found, refused = followed(tmp_path, table("station,when,level", rows, [*VALUES] * 2))
    assert len(refused) == 1
    assert [one.id for one in found.series] == ["north", "south"]
    is_right(found)


def test_words_are_no_series_and_rows_can_be_counted(tmp_path: Path) -> None:
    found = read(tmp_path, table("date,v,weather", values=[f"{v},rain" for v in VALUES]))
    assert [one.id for one in found.series] == ["v"]
    assert "`weather` is not a series (text) and is left out" in found.notes
    found, refused = followed(tmp_path, table("a,b"[:3], VALUES, VALUES))
    assert (found.freq, len(found.series), len(refused)) == ("1", 2, 1)
    assert list(found.series[0].stamps[:2]) == [1, 2]


def test_indices_of_parquet_and_feather(tmp_path: Path) -> None:
    frame = pd.DataFrame({"date": HOURS, "v": VALUES})
    path = tmp_path / "it.parquet"
    frame.set_index("date").rename_axis(None).to_parquet(path)
    is_right(read_series(path, ReadOptions()))
    both = pd.concat([frame.assign(item_id=f"s{k}") for k in range(3)]).rename(columns={"v": "target"})
    both.set_index(["item_id", "date"]).rename_axis(["item_id", "timestamp"]).to_parquet(path)
    found = read_series(path, ReadOptions())
    assert [one.id for one in found.series] == ["s0", "s1", "s2"]
    is_right(found)
    frame.to_feather(tmp_path / "it.feather")
    is_right(read_series(tmp_path / "it.feather", ReadOptions()))


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"date": str(t), "v": float(v)} for t, v in zip(HOURS, VALUES, strict=True)]
    is_right(read(tmp_path, "\n".join(map(json.dumps, rows)), "it.jsonl"))
    is_right(read(tmp_path, json.dumps(rows), "it.json"))
    line = {"item_id": "a", "start": str(HOURS[0]), "freq": "H", "target": list(VALUES)}
    is_right(read(tmp_path, json.dumps(line) + "\n" + json.dumps(line | {"item_id": "b"}), "it.jsonl"))


def test_excel(tmp_path: Path) -> None:
    """The five parts that a workbook needs."""
    cells = "".join(f'<row r="{i}"><c r="A{i}" t="str"><v>{t}</v></c><c r="B{i}"><v>{v}</v></c></row>'
                    for i, (t, v) in enumerate(zip(HOURS, VALUES, strict=True), 2))  # fmt: skip
    head = '<row r="1"><c r="A1" t="str"><v>date</v></c><c r="B1" t="str"><v>v</v></c></row>'
    base = "http://schemas.openxmlformats.org"
    main, rel, kind = (
        f"{base}/spreadsheetml/2006/main",
        f"{base}/officeDocument/2006/relationships",
        f"{base}/package/2006",
    )

    def relation(what: str, target: str) -> str:
        one = f'<Relationship Id="r1" Type="{rel}/{what}" Target="{target}"/>'
        return f'<Relationships xmlns="{kind}/relationships">{one}</Relationships>'

    types = '<Default Extension="xml" ContentType="application/xml"/>'
    sheet = '<sheet name="one" sheetId="1" r:id="r1"/>'
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{kind}/content-types">{types}</Types>',
        "_rels/.rels": relation("officeDocument", "xl/workbook.xml"),
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{rel}"><sheets>{sheet}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relation("worksheet", "worksheets/sheet1.xml"),
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{head}{cells}</sheetData></worksheet>',
    }
    with zipfile.ZipFile(tmp_path / "it.xlsx", "w") as book:
        for name, content in parts.items():
            book.writestr(name, content)
    is_right(read_series(tmp_path / "it.xlsx", ReadOptions()))


def test_rows_as_series(tmp_path: Path) -> None:
    def rows(names: str, times: Any, n: int = 60) -> str:
        lines = [
            f"s{k}{',x' * names.count(',')}," + ",".join(map(str, VALUES[k : k + n - k])) + "," * k for k in range(3)
        ]
        return f"{names}," + ",".join(map(str, times)) + "\n" + "\n".join(lines)

    for names, times, first in (("V1", [f"V{i}" for i in range(2, 62)], 2),
                                ("id,item", [f"d_{i}" for i in range(1, 61)], 1),
                                ("Country", range(1960, 2020), pd.Timestamp("1960-01-01")),
                                ("city", DAYS[:60].strftime("%Y-%m-%d"), DAYS[0])):  # fmt: skip
        found = read(tmp_path, rows(names, times))
        assert [one.id for one in found.series] == ["s0", "s1", "s2"]
        assert [len(one.values) for one in found.series] == [60, 59, 58]
        assert found.series[1].stamps[0] == first
        np.testing.assert_array_equal(found.series[1].values, VALUES[1:60])
        assert found.notes[0].startswith("read as a row for each series: 3 of them")
    years = [f"{1950 + k}," + ",".join(map(str, VALUES[12 * k : 12 * k + 12])) for k in range(30)]
    found = read(tmp_path, "YEAR,JAN,FEB,MAR,APR,MAY,JUN,JUL,AUG,SEP,OCT,NOV,DEC\n" + "\n".join(years))
    np.testing.assert_array_equal(found.series[0].values, VALUES[:360])
    assert found.freq == "MS"


def test_monash(tmp_path: Path) -> None:
    head = "# of M\n@relation m\n@attribute series_name string\n@attribute start_timestamp date\n"
    head += "@frequency monthly\n@data\n"
    rows = [f"T{k}:1979-01-15 00-00-00:" + ",".join(map(str, VALUES[: 90 + k])) for k in range(3)]
    found = read(tmp_path, head + "\n".join(rows), "it.tsf")
    assert ([one.id for one in found.series], found.freq) == (["T0", "T1", "T2"], "MS")
    np.testing.assert_array_equal(found.series[2].values, VALUES[:92])
    assert str(found.series[0].stamps[0].date()) == "1979-01-01"
    for broken, message in (("T1:5", "row 1 has 1 attributes"), ("T1:soon:5,6", "`soon` is not a time"),
                         ("T1:1979-01-01 00-00-00:5,x", "could not convert")):  # fmt: skip
        with pytest.raises(VqtoolError, match=message):
            read(tmp_path, head + broken, "it.tsf")


def test_a_broken_series_does_not_stop_the_rest(tmp_path: Path) -> None:
    cells = [f"{v},{'' if i == 50 else v}" for i, v in enumerate(VALUES)]
    found = read(tmp_path, table("ds,a,b", values=cells))
    assert [one.id for one in found.series] == ["a"]
    assert any(note.startswith("warning: 1 of 2 series left out: series `b`: row 51") for note in found.notes)
    assert [one.id for one in read(tmp_path, table("ds,a,b", values=cells), fill="ffill").series] == ["a", "b"]
    with pytest.raises(VqtoolError, match="series `b`: row 51"):
        read(tmp_path, table("ds,a,b", values=cells), series=("a", "b"))


def test_an_outlier_is_named_and_kept_out_of_histories(tmp_path: Path) -> None:
    import torch

    values = VALUES.copy()
    values[200] = 1e9
    found = read(tmp_path, table("ds,v", values=values))
    assert "warning: series `v`: 1e+09 at 2023-01-09 08:00:00" in found.notes[-1]
    histories = torch.from_numpy(np.stack([values[150:250], VALUES[150:250]]))
    clean = outliers.without(histories)
    assert float(clean[0, 50]) == VALUES[199]
    torch.testing.assert_close(clean[1], histories[1])
    sparse = torch.zeros(2, 100)
    sparse[:, 50] = 100  # seldom sold is no error
    torch.testing.assert_close(outliers.without(sparse), sparse)
