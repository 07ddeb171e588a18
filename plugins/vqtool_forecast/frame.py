"""From a file to series: CSV or Parquet, long or wide; columns found, time stamps parsed, nothing guessed."""

from __future__ import annotations

import csv
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError, missing_extra
from vqtool.files import cell_text
from vqtool.untrusted import no_twins
from vqtool_forecast import packed

if TYPE_CHECKING:
    import pandas as pd

SENTINELS = (-999.0, -9999.0, -99999.0)
TEXT_KINDS = (".csv", ".tsv", ".txt")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
DECIMAL_COMMA, DECIMAL_POINT = (rf"\s*[+-]?\d*{mark}\d+\s*" for mark in (",", r"\."))
TIME_NAMES = ("ds", "date", "datetime", "time", "timestamp")


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read a file; the options of the data kind `series` that say so."""

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


@dataclass(frozen=True, slots=True)
class Raw:
    """One series as it stands in its file."""

    id: str
    stamps: pd.Index  # [n]
    values: NDArray[np.float64]  # [n]
    rows: NDArray[np.int64]  # [n] 1-based rows of the file, its header not counted


def pandas(needed_by: str = "reading series") -> Any:
    """The library, or the error that names the extra it comes with."""
    try:
        import pandas as pd
    except ImportError as error:
        raise missing_extra("pandas", "forecast", needed_by) from error
    return pd


def read(path: Path, how: Reading, cutoff: str | None, notes: list[str]) -> list[Raw]:
    """Every series of a file, up to and with `cutoff`; what was found out about the file goes to `notes`."""
    table = read_table(path, notes)
    layout, time = columns(table, how, path)
    stamps = parse_times(table[time], how, path)
    if layout == "wide":
        names = _chosen(_series_columns(table, time, how, path, notes), how, path)
        stamps = in_zone(stamps, how, path)
        at = np.arange(len(table))[until(cutoff, stamps)]
        found = [Raw(name, stamps[at], _numbers(table[name].iloc[at], at + 1, name, path), at + 1) for name in names]
    else:
        unused = [f"`{c}`" for c in table.columns if c not in (how.id, time, how.target)]
        if unused:
            notes.append(f"columns not used: {', '.join(unused[:5])}{', ...' if len(unused) > 5 else ''}")
        found = []
        for name, at in _places(table[how.id], how, path).items():
            own = in_zone(stamps[at], how, path)
            kept = until(cutoff, own)
            at = at[kept]
            found.append(Raw(name, own[kept], _numbers(table[how.target].iloc[at], at + 1, name, path), at + 1))
    there = [raw for raw in found if len(raw.stamps)]
    if not there:
        raise VqtoolError(f"no row is as early as the cutoff {cutoff}: the first is of {stamps.min()}", where=str(path))
    notes += [f"series `{raw.id}` begins after the cutoff and is left out" for raw in found if not len(raw.stamps)]
    last = max(raw.stamps[-1] for raw in there)
    if cutoff is not None and sum(len(raw.stamps) for raw in there) == len(table) * (
        len(found) if layout == "wide" else 1
    ):
        notes.append(f"no row is later than the cutoff {cutoff}: the last is of {last}")
    return there


def _places(ids: pd.Series, how: Reading, path: Path) -> dict[str, NDArray[np.intp]]:
    """The rows of each series that is wanted, in a long file."""
    if bool(ids.isna().any()):
        row = int(np.flatnonzero(ids.isna())[0]) + 1
        raise VqtoolError(f"row {row} has no `{how.id}`", where=str(path))
    code, found = pandas().factorize(_text(ids, path))
    groups = np.split(code.argsort(kind="stable"), np.bincount(code).cumsum()[:-1])
    places = dict(zip((cell_text(str(name)) for name in found), groups, strict=True))
    return {name: places[name] for name in _chosen(list(places), how, path)}


def _text(column: pd.Series, path: Path) -> pd.Series:
    """A column as text."""
    try:
        return column.astype(str)
    except UnicodeDecodeError as error:
        raise VqtoolError(f"`{column.name}` holds bytes that are not text", where=str(path)) from error


def until(cutoff: str | None, stamps: pd.Index) -> NDArray[np.bool_]:
    """Which stamps are as early as the cutoff."""
    return np.ones(len(stamps), dtype=bool) if cutoff is None else np.asarray(stamps <= parse_cutoff(cutoff, stamps))


def read_table(path: Path, notes: list[str]) -> pd.DataFrame:
    """The file as a frame; CSV and TSV, packed or not, and Parquet."""
    if not path.is_file():
        raise VqtoolError(f"there is no file `{path}`")
    pd = pandas()
    kinds = [s.lower() for s in path.suffixes]
    kind = kinds[-2] if len(kinds) > 1 and kinds[-1] in packed.PACKED else kinds[-1] if kinds else ""
    try:
        if kind in (".parquet", ".pq"):
            table = packed.parquet(path, pd)
            table = table.reset_index() if table.index.name else table
        elif kind in TEXT_KINDS:
            table = _read_text(path, "\t" if kind == ".tsv" else None, notes)
        else:
            raise VqtoolError(
                f"`{path.name}` is of an unknown kind", hint="CSV (.csv, .csv.gz), TSV or Parquet (.parquet)"
            )
    except (ValueError, OSError, EOFError, csv.Error) as error:  # pandas' and pyarrow's own errors are among these
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise VqtoolError(f"`{path}` cannot be read: {lines[0]}") from error
    table.columns = [str(c) for c in table.columns]
    if len(table) == 0 or table.shape[1] < 2:
        raise VqtoolError(
            f"`{path}` has {len(table)} rows and {table.shape[1]} columns", hint="a time column and values"
        )
    return table


def _read_text(path: Path, separator: str | None, notes: list[str]) -> pd.DataFrame:
    """CSV, separated by the commonest of comma, semicolon and tab in its header; a decimal comma is seen and said."""
    pd = pandas()
    source = packed.text(path)

    def read(**how: Any) -> pd.DataFrame:
        if not isinstance(source, Path):
            source.seek(0)
        return pd.read_csv(source, **how)

    header = str(read(sep="\x1f", nrows=0, quoting=csv.QUOTE_NONE).columns[0])  # the first line
    if re.match(r"#[^,;\t]", header):
        raise VqtoolError(
            f"the first line begins with `#`: `{header[:40]}`",
            hint="the header comes first: delete lines of comment",
            where=str(path),
        )
    plain = re.sub(r'"[^"]*"', "", header)
    found = separator or max(SEPARATORS, key=plain.count)
    no_twins((name.strip() for name in next(csv.reader([header], delimiter=found), [])), path)
    if separator is None and found != ",":
        notes.append(f"columns separated by {SEPARATORS[found]}")
    table = read(sep=found)
    if found == "," or _first_like(DECIMAL_COMMA, table) is None:
        return table
    notes.append("numbers with a decimal comma")
    table = read(sep=found, decimal=",")
    if at := _first_like(DECIMAL_POINT, table):  # 1.234 beside 1,5 may be more than a thousand
        raise VqtoolError(
            f"`{table[at[0]].iloc[at[1]]}` in row {at[1] + 1} of `{at[0]}` has a decimal point; others have a comma",
            hint="write all numbers in one way, without marks of thousands",
            where=str(path),
        )
    return table


def _first_like(pattern: str, table: pd.DataFrame) -> tuple[str, int] | None:
    """The column and the place of the first text that is written so."""
    for name, column in table.select_dtypes(exclude="number").items():
        like = column.astype(str).str.fullmatch(pattern).to_numpy(dtype=bool)
        if like.any():
            return str(name), int(like.argmax())
    return None


def columns(table: pd.DataFrame, how: Reading, path: Path) -> tuple[str, str]:
    """The layout (`long` or `wide`) and the name of the time column."""
    there = list(table.columns)
    long = how.id in there and how.target in there and (how.time or "ds") in there
    if how.layout == "long" or (how.layout == "auto" and long):
        lacking = [name for name in (how.id, how.time or "ds", how.target) if name not in there]
        if lacking:
            raise VqtoolError(
                f"a long file needs the column{'s' if len(lacking) > 1 else ''} "
                f"{', '.join(f'`{name}`' for name in lacking)}; it has {', '.join(f'`{c}`' for c in there)}",
                hint='name yours: -s data.id="..." -s data.time="..." -s data.target="..."',
                where=str(path),
            )
        return "long", how.time or "ds"
    if how.time:
        if how.time not in there:
            raise VqtoolError(
                f"there is no column `{how.time}`; there are {', '.join(f'`{c}`' for c in there)}", where=str(path)
            )
        return "wide", how.time
    return "wide", _time_column(table, path)


def _time_column(table: pd.DataFrame, path: Path) -> str:
    """The one column of a wide file that holds no numbers, or one that is called like a time."""
    numeric = pandas().api.types.is_numeric_dtype
    texts = [c for c in table.columns if not numeric(table[c]) and not _is_flag(table[c])]
    named = [c for c in table.columns if c.lower() in TIME_NAMES]
    for found in (texts, named, [c for c in named if c in texts]):
        if len(found) == 1:
            return str(found[0])
    told = ", ".join(f"`{c}`" for c in texts or table.columns)
    raise VqtoolError(
        f"which of the columns {told} is the time?",
        hint='-s data.time="..."; of a long file also -s data.layout="long" -s data.id="..." -s data.target="..."',
        where=str(path),
    )


def _series_columns(table: pd.DataFrame, time: str, how: Reading, path: Path, notes: list[str]) -> list[str]:
    """The columns of a wide file that may be series: unless some are asked for, no id, no index and no flags."""
    there = [str(c) for c in table.columns if c != time]
    if how.series:
        return there
    if how.layout == "auto" and how.id in there:
        others = ", ".join(f"`{c}`" for c in table.columns if c != how.id)
        raise VqtoolError(
            f"`{how.id}` names the series of a long file, but which of {others} are its times and values?",
            hint=f'-s data.layout="long" -s data.time="{time}" -s data.target="..."; if it is a series: '
            '-s data.layout="wide"',
            where=str(path),
        )
    left_out = {c: "true or false" for c in there if _is_flag(table[c])}
    if "Unnamed: 0" in there:
        left_out["Unnamed: 0"] = "a column without a name, as of an index"
    notes += [f"`{name}` is no series ({why}) and is left out" for name, why in left_out.items()]
    if len(left_out) == len(there):
        raise VqtoolError(
            f"no column is a series: {', '.join(f'`{c}`' for c in there)}",
            hint='choose those that are: -s data.series=["..."]',
            where=str(path),
        )
    return [name for name in there if name not in left_out]


def _is_flag(column: pd.Series) -> bool:
    """Whether a column holds true and false, and perhaps gaps."""
    return bool(pandas().api.types.infer_dtype(column, skipna=True) == "boolean")


def _chosen(found: list[str], how: Reading, path: Path) -> list[str]:
    """The series asked for, in the file's order; all of them by default."""
    lacking = [name for name in how.series if name not in found]
    if lacking:
        raise VqtoolError(
            f"there is no series `{lacking[0]}`; there are {', '.join(f'`{n}`' for n in found[:12])}", where=str(path)
        )
    return [name for name in found if name in how.series] if how.series else found


def _numbers(column: pd.Series, rows: NDArray[np.int64], name: str, path: Path) -> NDArray[np.float64]:
    """A column as float64; what is no number is an error that names its row. Infinities are missing values."""
    if column.dtype.kind in "mMc":
        what = {"m": "time differences", "M": "dates", "c": "complex numbers"}[column.dtype.kind]
        raise VqtoolError(
            f"series `{name}` holds {what}, not numbers",
            hint='choose the columns that are series: -s data.series=["..."]',
            where=str(path),
        )
    try:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        for place, value in enumerate(column.to_numpy()):
            try:
                float(value)
            except (ValueError, TypeError):
                raise VqtoolError(
                    f"series `{name}`: `{value}` in row {rows[place]} is no number",
                    hint='choose the columns that are series: -s data.series=["..."]',
                    where=str(path),
                ) from None
        raise
    return np.where(np.isfinite(values), values, np.nan)


def parse_times(column: pd.Series, how: Reading, path: Path) -> pd.Index:
    """Integers as they are; else time stamps."""
    pd = pandas()
    if bool(column.isna().any()):
        raise VqtoolError(f"row {int(np.flatnonzero(column.isna())[0]) + 1} has no time stamp", where=str(path))
    if pd.api.types.is_integer_dtype(column) and not how.time_format:
        return pd.Index(column.to_numpy(dtype=np.int64))
    if pd.api.types.is_float_dtype(column):
        raise VqtoolError(f"the times in `{column.name}` are numbers with fractions", hint="dates, or whole numbers")
    stamps = column
    if not pd.api.types.is_datetime64_any_dtype(column):
        stamps = _parsed(_text(column, path), how, path)
    return pd.DatetimeIndex(stamps)


def in_zone(index: pd.Index, how: Reading, path: Path) -> pd.Index:
    """One series' stamps in `timezone`, where one is given; the hour that comes twice is told apart by the order."""
    if not how.timezone or not isinstance(index, pandas().DatetimeIndex):
        return index
    try:
        if index.tz is not None:
            return index.tz_convert(how.timezone)
        return index.tz_localize(how.timezone, ambiguous="raise" if index.is_unique else "infer")
    except Exception as error:  # zoneinfo's, pytz's and pandas' own errors share no parent
        raise VqtoolError(f"the stamps are no times of `{how.timezone}`: {error}", where=str(path)) from error


def _parsed(column: pd.Series, how: Reading, path: Path) -> pd.Series:
    """Text to stamps. A date like 3/4/2020 is read one way only if the file itself rules out the other."""
    pd = pandas()
    first = str(column.iloc[0])
    layout: str | None = how.time_format or None
    day_first = False
    numbers = column.str.extract(r"^\s*(\d{1,2})[/.-](\d{1,2})[/.-](\d{2,4})")
    numeric = layout is None and bool(numbers[0].notna().all())
    short = bool((numbers[2].str.len() == 2).any()) if numeric else not bool(column.str.contains(r"\d{4}").any())
    if layout is None and short:  # 24-01-31 may be a day of 2024, of 2031 or of 2001
        raise VqtoolError(
            f"dates like `{first}` have no year of four digits",
            hint='dates like 2024-01-31, or their format: -s data.time_format="%y-%m-%d"',
            where=str(path),
        )
    if numeric:
        one, two = (int(numbers[i].astype(int).max()) for i in (0, 1))
        if (one > 12) == (two > 12):
            raise VqtoolError(
                f"dates like `{first}` may have the day or the month first",
                hint='-s data.time_format="%d/%m/%Y" or "%m/%d/%Y"',
                where=str(path),
            )
        day_first = one > 12
    elif layout is None and first[:4].isdigit():
        layout = "ISO8601"
    offset = bool(column.str.contains(r"\d(?:[+-]\d{2}:?\d{2}|Z)$").all())
    try:
        with warnings.catch_warnings():  # pandas warns where it would guess each stamp by itself
            warnings.simplefilter("ignore" if numeric else "error", UserWarning)
            stamps = pd.to_datetime(column, format=layout, dayfirst=day_first, utc=bool(offset and how.timezone))
        if pd.api.types.is_datetime64_any_dtype(stamps):
            return stamps
    except (ValueError, TypeError, UserWarning) as error:
        if "Mixed timezones" in str(error):
            raise VqtoolError(
                "the stamps have several UTC offsets", hint="-s data.timezone=Europe/Berlin, say", where=str(path)
            ) from error
    with warnings.catch_warnings(action="ignore"):
        wrong = pd.to_datetime(column, format=layout, dayfirst=day_first, utc=True, errors="coerce").isna().to_numpy()
    row = int(np.flatnonzero(wrong)[0]) if wrong.any() else 0
    told = f"is no time stamp like `{first}`" if wrong.any() else "is written in no way that is known"
    raise VqtoolError(
        f"`{column.iloc[row]}` in row {row + 1} of `{column.name}` {told}",
        hint='its format, as in -s data.time_format="%d.%m.%Y %H:%M"',
        where=str(path),
    )


def parse_cutoff(cutoff: str, stamps: pd.Index) -> Any:
    """The cutoff as a stamp of the file's kind: an integer, or a time, in the file's zone where it has one."""
    pd = pandas()
    timed = isinstance(stamps, pd.DatetimeIndex)
    try:
        if not timed:
            return int(cutoff)
        limit = pd.Timestamp(cutoff)
    except ValueError:
        raise VqtoolError(
            f"`{cutoff}` is no {'time' if timed else 'integer'}", hint=f"--cutoff, as in {stamps[-1]}"
        ) from None
    if stamps.tz is None and limit.tz is not None:
        raise VqtoolError(
            f"the cutoff {cutoff} has a zone; the file's stamps have none",
            hint="a --cutoff without one, or the file's zone: -s data.timezone=Europe/Berlin, say",
        )
    if stamps.tz is None:
        return limit
    return limit.tz_localize(stamps.tz) if limit.tz is None else limit.tz_convert(stamps.tz)
