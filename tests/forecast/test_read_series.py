"""Files as users have them: layouts, dates, disorder, gaps; every refusal names the series and the row."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.forecast.tiny import frame, long
from vqtool.errors import VqtoolError
from vqtool_forecast import read_table
from vqtool_forecast.columns import ReadOptions
from vqtool_forecast.read_series import read_series
from vqtool_forecast.windows import neighbours


def written(folder: Path, table: pd.DataFrame, name: str = "it.csv") -> Path:
    """The table in a file of the kind that its name says."""
    path = folder / name
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("name", ["it.csv", "it.csv.gz", "it.tsv", "it.parquet"])
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_all_kinds_and_layouts_say_the_same(tmp_path: Path, name: str, layout: str) -> None:
    table = frame(100)
    path = written(tmp_path, long(table) if layout == "long" else table, name)
    series, freq, notes = read_series(path, ReadOptions())
    assert [one.id for one in series] == ["a", "b"]
    assert freq == "h"
    assert notes == ["frequency `h`, inferred from 100 time stamps"]
    for one in series:
        np.testing.assert_array_equal(one.values, table[one.id])
        assert one.measured.all()
    assert str(series[0].stamps[-1]) == "2020-03-05 03:00:00"


@pytest.mark.parametrize(("separator", "said", "decimal"), [
    (",", None, "."), (";", "semicolons", "."), (";", "semicolons", ","), ("\t", "tabs", "."), ("\t", "tabs", ","),
])  # fmt: skip
@pytest.mark.parametrize("name", ["it.csv", "it.csv.gz"])
def test_separators_and_decimal_commas(
    tmp_path: Path, separator: str, said: str | None, decimal: str, name: str
) -> None:
    """As spreadsheets of most of Europe write it, with a mark of byte order in front."""
    table = frame(100).rename(columns={"a": "a, in kW; net"}).assign(n=np.arange(100))
    table.to_csv(tmp_path / name, index=False, sep=separator, decimal=decimal, encoding="utf-8-sig")
    series, _, notes = read_series(tmp_path / name, ReadOptions())
    assert [one.id for one in series] == ["a, in kW; net", "b", "n"]
    for one in series:
        np.testing.assert_array_equal(one.values, table[one.id])
    expected = [f"columns separated by {said}"] if said else []
    expected += ["numbers with a decimal comma"] if decimal == "," else []
    assert notes[:-1] == expected


def test_numbers_that_are_written_in_two_ways_are_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "it.csv"
    path.write_text("ds;v;w\n" + "".join(f"2020-01-{day:02d};1,5;1.234\n" for day in range(1, 20)))
    with pytest.raises(VqtoolError, match=r"`1.234` in row 1 of `w` has a decimal point; others have a comma"):
        read_series(path, ReadOptions())


@pytest.mark.parametrize("comment", ["# of the station, north\n", "# logger 3\n#\n# unit: V; 5 min\n", "# x\n" * 50])
@pytest.mark.parametrize("names", ["", "# ", "#"])
def test_lines_of_comment_are_skipped_and_named(comment: str, names: str, tmp_path: Path) -> None:
    """The names may stand behind a `#` themselves."""
    path = tmp_path / "it.csv"
    path.write_text(comment + names + frame(50).to_csv(index=False))
    plain, _, _ = read_series(written(tmp_path, frame(50), "plain.csv"), ReadOptions())
    series, _, notes = read_series(path, ReadOptions())
    assert [one.id for one in series] == [one.id for one in plain]
    np.testing.assert_array_equal(series[0].values, plain[0].values)
    assert notes[0].startswith(f"lines of comment before the table skipped: {comment.count('#')}, the first `# ")


@pytest.mark.parametrize("text", ["# of the station\n", "# a\n# date,load\n" * 40])
def test_nothing_but_lines_of_comment_is_one_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "it.csv"
    path.write_text(text)
    with pytest.raises(VqtoolError, match=r"`it.csv` cannot be read: nothing but lines of comment"):
        read_series(path, ReadOptions())


def test_real_time_stamps_and_integers(tmp_path: Path) -> None:
    table = frame(50).assign(date=lambda t: pd.to_datetime(t["date"]))
    series, freq, _ = read_series(written(tmp_path, table, "it.parquet"), ReadOptions())
    assert (freq, len(series[0].values)) == ("h", 50)
    table = pd.DataFrame({"time": np.arange(10, 30, 2), "v": np.arange(10.0)})
    series, freq, _ = read_series(written(tmp_path, table), ReadOptions())
    assert (freq, series[0].stamps[-1]) == ("2", 28)


def test_names_of_columns(tmp_path: Path) -> None:
    table = long(frame(50)).rename(columns={"unique_id": "item", "ds": "when", "y": "sold"})
    path = written(tmp_path, table)
    with pytest.raises(VqtoolError, match="which of the columns `item`, `when` is the time"):
        read_series(path, ReadOptions())
    with pytest.raises(VqtoolError, match="needs the columns `unique_id`, `ds`, `y`; it has `item`, `when`, `sold`"):
        read_series(path, ReadOptions(layout="long"))
    series, _, _ = read_series(path, ReadOptions(layout="long", id="item", time="when", target="sold"))
    assert [one.id for one in series] == ["a", "b"]
    series, _, _ = read_series(path, ReadOptions(layout="long", id="item", time="when", target="sold", series=("b",)))
    assert [one.id for one in series] == ["b"]
    with pytest.raises(VqtoolError, match="there is no series `z`; there are `a`, `b`"):
        read_series(path, ReadOptions(layout="long", id="item", time="when", target="sold", series=("z",)))


def said(table: pd.DataFrame, folder: Path, **how: object) -> tuple[list[str], list[str]]:
    """The series found in a table, and what was said but for the frequency."""
    series, _, notes = read_series(written(folder, table), ReadOptions(**how))
    return [one.id for one in series], notes[:-1]


def test_columns_that_are_no_series_are_left_out_aloud(tmp_path: Path) -> None:
    flags = {"holiday": [True, False] * 50, "open": [True, None] * 50}
    table = frame(100).assign(**flags)
    flag = [f"`{name}` is not a series (true or false) and is left out" for name in flags]
    assert said(table, tmp_path) == (["a", "b"], flag)
    index = "`Unnamed: 0` is not a series (a column without a name, as of an index) and is left out"
    assert said(frame(100).reset_index(names=""), tmp_path) == (["a", "b"], [index])
    assert said(frame(100).set_index("date").reset_index(names=""), tmp_path) == (["a", "b"], [])  # its times
    assert said(table, tmp_path, series=("a", "holiday")) == (["a", "holiday"], [])
    with pytest.raises(VqtoolError, match="no column is a series: `holiday`, `open`"):
        said(table.drop(columns=["a", "b"]), tmp_path)


def test_an_id_is_no_series(tmp_path: Path) -> None:
    table = long(frame(100)).assign(unique_id=lambda t: (t.unique_id == "b").astype(int))
    table = table.rename(columns={"ds": "date"})
    with pytest.raises(VqtoolError, match="`unique_id` names the series of a long file, but which of") as caught:
        said(table.rename(columns={"y": "sold"}), tmp_path)
    assert said(table, tmp_path)[0] == ["0", "1"]  # `y` is a name that people use
    assert str(caught.value.hint).startswith(
        '-s data.layout=long -s data.id="unique_id" -s data.time="date" -s data.target="sold"'
    )
    assert said(table, tmp_path, time="date") == (["0", "1"], [])
    assert said(table.iloc[:100], tmp_path, layout="wide") == (["unique_id", "y"], [])


def test_a_long_file_says_which_columns_it_does_not_use(tmp_path: Path) -> None:
    table = long(frame(100)).assign(price=1.0, shop="x")
    assert said(table, tmp_path) == (["a", "b"], ["columns not used: `price`, `shop`"])


def monthly() -> pd.DataFrame:
    """Three years of months."""
    stamps = pd.date_range("2020-01-01", periods=36, freq="MS").strftime("%Y-%m-%d")
    return pd.DataFrame({"ds": stamps, "milk": np.arange(36.0) + 500})


ILL = [
    (lambda t: t.iloc[[*range(9), 20, *range(9, 20)]], r"not sorted: row 11 \(2020-10-01"),
    (lambda t: t.iloc[[*range(9), *range(8, 36)]], r"rows 9 and 10 have the same time stamp 2020-09-01"),
    (lambda t: t.drop(index=[5, 6, 20]), r"3 rows are missing; the first after row 5: 2020-06-01 .* 2020-05-01"),
    (lambda t: t.assign(milk=t.milk.where(t.index != 7)), r"row 8 \(2020-08-01 00:00:00\) has no value"),
    (lambda t: t.assign(milk=t.milk.where(t.index != 3, -9999)), r"row 4 \(2020-04-01 .*\) is -9999, which stands"),
    (lambda t: t.assign(milk=t.milk.where(t.index != 7, np.inf)), r"row 8 .* has no value"),
    (lambda t: t.assign(milk=t.milk.astype(object).where(t.index != 2, "n/b")), r"`n/b` in row 3 is not a number"),
    (lambda t: t.assign(ds=t.ds.where(t.index != 4, "soon")), r"`soon` in row 5 of `ds` is not a time stamp"),
    (lambda t: t.assign(ds=t.ds.where(t.index != 4)), r"row 5 has no time stamp"),
    (lambda t: t.assign(ds=t.ds.where(t.index != 4, "2020-05-02")), r"keep no regular step"),
    (lambda t: t.assign(milk=np.nan), r"row 1 .* has no value \(36 such rows\)"),
    (lambda t: t.iloc[:0], r"has 0 rows"),
]


@pytest.mark.parametrize(("change", "message"), ILL, ids=[message[:30] for _, message in ILL])
def test_what_is_wrong_with_a_file_is_told_by_series_and_row(tmp_path: Path, change: object, message: str) -> None:
    path = written(tmp_path, change(monthly()))  # type: ignore[operator]
    with pytest.raises(VqtoolError, match=message) as caught:
        read_series(path, ReadOptions())
    assert caught.value.where == str(path)


def test_a_stamp_off_the_calendar_given(tmp_path: Path) -> None:
    table = monthly()
    table.loc[4, "ds"] = "2020-05-02"
    with pytest.raises(VqtoolError, match=r"row 5 \(2020-05-02 .*\) is not on the calendar `MS`"):
        read_series(written(tmp_path, table), ReadOptions(freq="M"))


def test_nothing_but_a_file_that_can_be_read(tmp_path: Path) -> None:
    for name, content, message in (("a.dat", b"@data", "unknown kind"),
                                ("a.tsf", b"@data", "no rows after `@data`"), ("a.csv", b"", "cannot be read"),
                                ("a.csv.gz", b"no gzip", "cannot be read"), ("a.parquet", b"PAR1", "cannot be read"),
                                ("a.csv", b"\xff\xfe\x00a,b\n", "cannot be read")):  # fmt: skip
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(VqtoolError, match=message):
            read_series(path, ReadOptions())
    with pytest.raises(VqtoolError, match="there is no file"):
        read_series(tmp_path / "none.csv", ReadOptions())


@pytest.mark.parametrize(
    ("fill", "expected"), [("ffill", [504, 504, 504, 507, 507]), ("interp", [504, 505, 506, 507, 508])]
)
def test_filling_is_asked_for(tmp_path: Path, fill: str, expected: list[float]) -> None:
    table = monthly().drop(index=[5]).assign(milk=lambda t: t.milk.where(t.index != 8, -9999).where(t.index != 6))
    series, _, notes = read_series(written(tmp_path, table), ReadOptions(fill=fill))
    assert list(series[0].values[4:9]) == expected
    assert list(np.flatnonzero(~series[0].measured)) == [5, 6, 8]
    assert notes[-1] == f"3 missing values filled ({fill})"


def test_what_comes_before_the_first_value_is_dropped_and_after_the_last_it_stays(tmp_path: Path) -> None:
    table = monthly().assign(milk=lambda t: t.milk.where((t.index > 2) & (t.index < 30)))
    series, _, _ = read_series(written(tmp_path, table), ReadOptions(fill="interp"))
    assert (len(series[0].values), series[0].values[0], series[0].values[-1]) == (33, 503, 529)


def test_no_more_is_filled_in_than_there_is(tmp_path: Path) -> None:
    """Dates as whole numbers are 8 870 apart from December to January."""
    days = pd.date_range("2020-11-01", periods=90, freq="D")
    path = written(tmp_path, pd.DataFrame({"date": days.strftime("%Y%m%d").astype(int), "v": np.arange(90.0)}))
    with pytest.raises(VqtoolError, match="`v` has 90 values on 9029 stamps from 20201101 to 20210129") as caught:
        read_series(path, ReadOptions(freq="1", fill="ffill"))
    assert caught.value.hint == 'another --freq, or the format of its times, e.g. -s data.time_format="%Y%m%d"'
    series, freq, _ = read_series(path, ReadOptions(time_format="%Y%m%d"))
    assert (freq, list(series[0].stamps)) == ("D", list(days))


@pytest.mark.parametrize("name", ["it.csv", "it.csv.gz", "it.tsv"])
def test_ids_are_text(tmp_path: Path, name: str) -> None:
    ids = ["01", "1", "NA", "1E5", "true", "1.0"]
    table = pd.concat([long(frame(60)).head(60).assign(unique_id=name) for name in ids])
    path = written(tmp_path, table, name)
    series, _, _ = read_series(path, ReadOptions())
    assert [one.id for one in series] == ids
    assert all(len(one.values) == 60 for one in series)
    table.loc[table.unique_id == "NA", "unique_id"] = ""
    with pytest.raises(VqtoolError, match="row 121 has no `unique_id`"):
        read_series(written(tmp_path, table, name), ReadOptions())
    table = table.assign(unique_id="a", y=table.y.astype(object).where(table.index != 7, "NA"))
    with pytest.raises(VqtoolError, match="has no value"):  # among values it still stands for a missing one
        read_series(written(tmp_path, table.head(60), name), ReadOptions())


def test_a_real_minus_999_can_be_declared(tmp_path: Path) -> None:
    table = monthly().assign(milk=lambda t: t.milk.where(t.index != 8, -999))
    series, _, _ = read_series(written(tmp_path, table), ReadOptions(sentinels=()))
    assert series[0].values[8] == -999


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        (["1/12/2020", "2/12/2020", "3/12/2020", "4/12/2020", "5/12/2020"], "the day or the month first"),
        (["13/1/2020", "14/1/2020", "15/1/2020", "16/1/2020", "17/1/2020", "18/1/2020"], None),
        (["1/13/2020", "1/14/2020", "1/15/2020", "1/16/2020", "1/17/2020", "1/18/2020"], None),
    ],
)
def test_dates_with_slashes(tmp_path: Path, stamps: list[str], message: str | None) -> None:
    path = written(tmp_path, pd.DataFrame({"ds": stamps, "v": np.arange(float(len(stamps)))}))
    if message is None:
        series, freq, _ = read_series(path, ReadOptions())
        assert (freq, str(series[0].stamps[0])) == ("D", "2020-01-13 00:00:00")
        return
    with pytest.raises(VqtoolError, match=message):
        read_series(path, ReadOptions())
    series, freq, _ = read_series(path, ReadOptions(time_format="%d/%m/%Y", freq="D"))
    assert str(series[0].stamps[0]) == "2020-12-01 00:00:00"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layout", ["%y-%m-%d", "%y-%m-%d %H:%M", "%d/%m/%y", "%d.%m.%y", "%d-%b-%y", "%H:%M"])
def test_years_of_two_digits_are_refused(tmp_path: Path, layout: str) -> None:
    days = pd.date_range("2024-01-01", periods=60, freq="D")
    path = written(tmp_path, pd.DataFrame({"ds": days.strftime(layout), "v": np.arange(60.0)}))
    with pytest.raises(VqtoolError, match=f"dates like `{days[0].strftime(layout)}` have no year of four digits"):
        read_series(path, ReadOptions())
    if "%y" in layout:
        series, _, _ = read_series(path, ReadOptions(time_format=layout))
        assert list(series[0].stamps) == list(days)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "layout", ["%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M %p", "%Y/%m/%d", "%Y%m%dT%H%M", "%d %B %Y", "%d-%b-%Y"]
)
def test_plain_dates_are_read_without_a_warning(tmp_path: Path, layout: str) -> None:
    days = pd.date_range("2024-01-01", periods=60, freq="D")
    path = written(tmp_path, pd.DataFrame({"ds": days.strftime(layout), "v": np.arange(60.0)}))
    assert list(read_series(path, ReadOptions())[0][0].stamps) == list(days)


@pytest.mark.filterwarnings("error")
def test_dates_in_words_that_are_not_known_are_refused(tmp_path: Path) -> None:
    words = [f"the {day}. of Jan of 2024" for day in range(1, 20)]
    path = written(tmp_path, pd.DataFrame({"ds": words, "v": np.arange(19.0)}))
    with pytest.raises(VqtoolError, match=r"in row 1 of `ds` is"):
        read_series(path, ReadOptions())


def test_a_cutoff_with_a_zone_needs_stamps_with_one(tmp_path: Path) -> None:
    path = written(tmp_path, frame(300))
    with pytest.raises(
        VqtoolError, match=r"the cutoff 2020-03-09T12:30:00\+05:00 has a zone; the file's stamps have none"
    ):
        read_series(path, ReadOptions(), "2020-03-09T12:30:00+05:00")
    series, _, _ = read_series(path, ReadOptions(timezone="Europe/Berlin"), "2020-03-09T12:30:00+05:00")
    assert str(series[0].stamps[-1]) == "2020-03-09 08:00:00+01:00"


def test_local_time(tmp_path: Path) -> None:
    local = pd.date_range("2024-10-26", periods=60, freq="h", tz="Europe/Berlin")
    naive = pd.DataFrame({"ds": local.strftime("%Y-%m-%d %H:%M"), "v": np.arange(60.0)})
    path = written(tmp_path, naive, "naive.csv")
    with pytest.raises(VqtoolError, match="rows 27 and 28 have the same time stamp 2024-10-27 02:00:00"):
        read_series(path, ReadOptions())
    series, freq, _ = read_series(path, ReadOptions(timezone="Europe/Berlin"))
    assert (freq, list(series[0].stamps)) == ("h", list(local))
    table = pd.read_csv(path)
    both = pd.concat([table.assign(unique_id=name) for name in "xy"]).rename(columns={"v": "y"})
    series, _, _ = read_series(written(tmp_path, both), ReadOptions(timezone="Europe/Berlin"))
    assert [list(one.stamps) for one in series] == [list(local)] * 2
    path = written(tmp_path, pd.DataFrame({"ds": [stamp.isoformat() for stamp in local], "v": np.arange(60.0)}))
    with pytest.raises(VqtoolError, match="several UTC offsets"):
        read_series(path, ReadOptions())
    series, _, _ = read_series(path, ReadOptions(timezone="Europe/Berlin"))
    assert list(series[0].stamps) == list(local)
    with pytest.raises(VqtoolError, match="not times of `Mars/Phobos`"):
        read_series(path, ReadOptions(timezone="Mars/Phobos"))


def test_a_cutoff_hides_all_that_comes_later(tmp_path: Path) -> None:
    table = frame(100)
    whole, _, _ = read_series(written(tmp_path, table), ReadOptions(), "2020-03-03 05:00")
    table["a"] = table["a"].astype(object).where(table.index < 54, "rubbish")  # from the first row after the cutoff
    table.loc[60:, "date"] = "2021-01-01"
    cut, freq, _ = read_series(written(tmp_path, table), ReadOptions(), "2020-03-03 05:00")
    assert freq == "h"
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        assert len(one.values) == 54
    with pytest.raises(VqtoolError, match="no row is as early"):
        read_series(written(tmp_path, frame(9)), ReadOptions(), "2019-01-01")
    with pytest.raises(VqtoolError, match="`then` is not a time"):
        read_series(written(tmp_path, frame(9)), ReadOptions(), "then")
    _, _, notes = read_series(written(tmp_path, frame(9)), ReadOptions(), "2030-01-01")
    assert "no row is later than the cutoff 2030-01-01: the last is of 2020-03-01 08:00:00" in notes
    late = pd.concat([long(frame(60)), long(frame(200)).iloc[100:200].assign(unique_id="late")])
    series, _, notes = read_series(written(tmp_path, late), ReadOptions(), "2020-03-03")
    assert [one.id for one in series] == ["a", "b"]
    assert "series `late` begins after the cutoff and is left out" in notes


def test_neighbours() -> None:
    last, following = neighbours(np.array([True, False, False, True, False]))
    assert list(last) == [0, 0, 0, 3, 3]
    assert list(following) == [0, 3, 3, 3, 5]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = frame(60)
    path = tmp_path / "twins.csv"
    path.write_text(table.to_csv(index=False).replace("date,a,b", "date,a,a", 1))
    with pytest.raises(VqtoolError, match=r"two columns of `twins\.csv` are called `a`"):
        read_series(path, ReadOptions())
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pandas(table).rename_columns(["date", "a", "a"]), tmp_path / "twins.parquet")
    with pytest.raises(VqtoolError, match=r"two columns of `twins\.parquet` are called `a`"):
        read_series(tmp_path / "twins.parquet", ReadOptions())


def test_columns_of_dates_and_bytes_are_no_series(tmp_path: Path) -> None:
    table = frame(60)
    table["b"] = pd.to_datetime(table["date"])
    path = tmp_path / "a.parquet"
    table.to_parquet(path, index=False)
    with pytest.raises(VqtoolError, match="series `b` holds dates, not numbers"):
        read_series(path, ReadOptions(time="date"))
    long(frame(60)).assign(unique_id=b"\xff\x00").to_parquet(path, index=False)
    with pytest.raises(VqtoolError, match="`unique_id` holds bytes that are not text"):
        read_series(path, ReadOptions())


@pytest.mark.parametrize("name", ["bomb.csv.gz", "bomb.csv.bz2"])
def test_a_packed_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_table, "UNPACKED", 2**20)  # instead of a quarter of a gigabyte
    pack = {"gz": gzip.compress, "bz2": bz2.compress}[name.rsplit(".", 1)[1]]
    path = tmp_path / name
    path.write_bytes(pack(b"date,a\n2020-01-01,1\n") + pack(b"0" * 2**22) * 2)
    with pytest.raises(VqtoolError, match="unpacks to more than 100 times its size"):
        read_series(path, ReadOptions())


def test_a_parquet_file_that_promises_too_many_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_table, "UNPACKED", 2**20)
    path = tmp_path / "bomb.parquet"
    pd.DataFrame({"ds": np.zeros(10**6, np.int8), "y": np.int8(1)}).to_parquet(path, index=False)
    assert path.stat().st_size < 10**5
    with pytest.raises(VqtoolError, match="promises 1,000,000 rows of 2 columns"):
        read_series(path, ReadOptions())


def test_text_that_is_not_utf8_in_parquet_is_refused(tmp_path: Path) -> None:
    table = pd.DataFrame({"date": [f"2020-03-{day:02d} 18:00:00" for day in range(1, 29)], "y": range(28)})
    path = tmp_path / "damaged.parquet"
    table.to_parquet(path, index=False, compression=None)
    content = path.read_bytes()
    assert content.count(b"2020-03-05") == 1
    path.write_bytes(content.replace(b"2020-03-05", b"2020-03-0\xff"))
    with pytest.raises(VqtoolError, match=r"damaged\.parquet"):
        read_table.read_table(path, [])


def test_a_file_is_read_no_more_often_for_more_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every column here may be thousands with a point, and is looked at as text."""
    read, calls = pd.read_csv, []
    monkeypatch.setattr(pd, "read_csv", lambda *args, **more: calls.append(1) or read(*args, **more))
    for columns in (2, 40):
        calls.append(0)
        values = np.tile([1.5, 2.0, 3.125, 4.25, 5.0, 6.5], (columns, 2)).T
        table = pd.DataFrame(values, columns=[f"s{i}" for i in range(columns)])
        table.insert(0, "ds", pd.date_range("2020-01-01", periods=len(table)))
        table.to_csv(tmp_path / "wide.csv", index=False)
        assert len(read_series(tmp_path / "wide.csv", ReadOptions())[0]) == columns
    fewer, more = "".join(map(str, calls)).split("0")[1:]
    assert len(fewer) == len(more)
