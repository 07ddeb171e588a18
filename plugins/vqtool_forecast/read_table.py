"""From a file's bytes to a table: text in any of the usual dialects, packed or not, and the formats of libraries."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtool.errors import VqtoolError, missing_extra
from vqtool.errors import counted as count_of
from vqtool.untrusted import RATIO, UNPACKED, no_twins
from vqtool_forecast.dialect import MISSING, dialect_of, plain
from vqtool_forecast.time_forms import COUNTED

if TYPE_CHECKING:
    import pandas as pd

PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")
TEXT_KINDS = (".csv", ".tsv", ".txt")
PARQUET_KINDS = (".parquet", ".pq")
FEATHER_KINDS = (".feather", ".arrow")
EXCEL_KINDS = (".xlsx", ".xls", ".xlsb", ".ods")
LINES_KINDS = (".jsonl", ".ndjson", ".json")
CELL = 8  # bytes of a value in memory
KINDS = "CSV (.csv, .csv.gz), TSV, Parquet, Feather, Excel (.xlsx), JSON lines (.jsonl) or Monash (.tsf)"


@dataclass(frozen=True)
class Table:
    """A file's table, and its columns as they are written where that is text."""

    frame: pd.DataFrame
    text: Callable[[Collection[str]], pd.DataFrame] | None = None  # of columns by name
    semicolons: bool = False  # as they separate columns where the decimal mark is a comma


def pandas(needed_by: str = "reading series") -> Any:
    """The library, or the error that names the extra it comes with."""
    try:
        import pandas as pd
    except ImportError as error:
        raise missing_extra("pandas", "forecast", needed_by) from error
    return pd


@contextmanager
def about_file(path: Path) -> Iterator[None]:
    """Errors inside name this file, unless they name it or another place themselves."""
    try:
        yield
    except VqtoolError as error:
        if str(path) not in error.message:
            error.where = error.where or str(path)
        raise


def kind_of(path: Path) -> str:
    """The suffix that says what a file is, without that of its packing."""
    kinds = [suffix.lower() for suffix in path.suffixes]
    return kinds[-2] if len(kinds) > 1 and kinds[-1] in PACKED else kinds[-1] if kinds else ""


def read_table(path: Path, notes: list[str], *, text: Collection[str] = (), encoding: str = "", header: bool = True,
               counted: bool = False) -> Table:  # fmt: skip
    """The table in a file; what was assumed about it goes to `notes`. Columns named in `text` are not made numbers.

    Without `header` the first line of text is data; with `counted` one column will do.

    Raises:
        VqtoolError: it is not such a file, is damaged, unpacks to too much, or has fewer than two columns or no row.
    """
    kind = kind_of(path)
    try:
        if kind in PARQUET_KINDS:
            table = Table(_read_parquet(path))
        elif kind in FEATHER_KINDS:
            table = Table(_indexed(pandas().read_feather(path)))
        elif kind in EXCEL_KINDS:
            content = _read_excel(path, notes)
            table = _read_text(content, ",", text, "utf-8", path, notes, header)
        elif kind in LINES_KINDS:
            table = Table(_read_json(path))
        elif kind in TEXT_KINDS:
            separator = "\t" if kind == ".tsv" else None
            table = _read_text(unpacked(path), separator, text, encoding, path, notes, header)
        else:
            raise VqtoolError(f"`{path.name}` is of an unknown kind", hint=KINDS)
    except (ValueError, OSError, EOFError, csv.Error) as error:  # pandas' and pyarrow's own errors are among these
        lines = str(error).strip().splitlines() or [type(error).__name__]
        hint = "its encoding, as -s data.encoding=latin-1" if isinstance(error, UnicodeError) else None
        hint = "a header first, then lines of as many cells" if "tokenizing" in lines[0] else hint
        raise VqtoolError(f"`{path.name}` cannot be read: {lines[0]}", hint=hint) from error
    frame = table.frame
    frame.columns = [str(name) for name in frame.columns]
    empty = [name for name in frame if name.startswith("Unnamed: ") and bool(frame[name].isna().all())]
    if empty and len(frame):
        notes.append(f"{len(empty)} empty column{'s' if len(empty) > 1 else ''} without a name left out")
        frame = frame.drop(columns=empty)
    if len(frame) == 0 or frame.shape[1] < (1 if counted else 2):
        raise VqtoolError(
            f"`{path.name}` has {count_of(len(frame), 'row')} and {count_of(frame.shape[1], 'column')}",
            hint=f"a column of times and one of values; {COUNTED}" if len(frame) else "a column of times and values",
        )
    return replace(table, frame=frame)


def unpacked(path: Path) -> io.BytesIO | Path:
    """What is to be read: the file, or its content where it is packed."""
    if path.suffix.lower() not in PACKED:
        return path
    from pandas.io.common import get_handle

    room = max(UNPACKED, RATIO * path.stat().st_size)
    try:
        with get_handle(path, "rb", is_text=False, compression="infer") as opened:
            content: bytes = opened.handle.read(room + 1)  # of a binary handle
    except ImportError as error:
        raise VqtoolError(str(error), hint="unpack the file first", exit_code=1) from error
    except Exception as error:  # each way of packing has errors of its own
        raise VqtoolError(
            f"`{path.name}` cannot be read: {error}", hint="it may be cut short: fetch it again"
        ) from error
    if len(content) > room:
        raise VqtoolError(f"`{path.name}` unpacks to more than {RATIO} times its size", hint="unpack it first")
    return io.BytesIO(content)


def _read_text(
    source: io.BytesIO | Path, separator: str | None, text: Collection[str], encoding: str, path: Path,
    notes: list[str], header: bool,
) -> Table:  # fmt: skip
    """CSV in the dialect that its first lines are in."""
    dialect = dialect_of(source, separator, encoding, path, notes, header)

    def read(names: Collection[str], **more: Any) -> pd.DataFrame:
        if not isinstance(source, Path):
            source.seek(0)
        how = dialect.arguments() | (_as_text(names, dialect.names) if names else {}) | more
        return pandas().read_csv(source, **how)

    kept = [name for name in dialect.names if name in text or plain(name) in text]

    def written(names: Collection[str]) -> pd.DataFrame:
        return read(names, usecols=[dialect.names.index(name) for name in names])

    return Table(read(kept), written, semicolons=dialect.separator == ";")


def _as_text(columns: Collection[str], names: list[str]) -> dict[str, Any]:
    """How pandas keeps columns as they are written: `01`, `1E5` and `NA` are names there, only a gap is missing."""
    missing = {name: [""] if name in columns else MISSING for name in names}
    return {"dtype": dict.fromkeys(columns, str), "keep_default_na": False, "na_values": missing}


def _read_excel(path: Path, notes: list[str]) -> io.BytesIO:
    """The first sheet of a workbook that has a table, as CSV: titles, units and totals stand in it as they do there."""
    try:
        sheets = pandas().read_excel(path, sheet_name=None, engine="calamine", header=None)
    except ImportError as error:
        raise missing_extra("python-calamine", "forecast", "reading Excel files") from error
    except Exception as error:  # calamine's own errors share no parent with others
        raise ValueError(str(error)) from error
    sheets = {name: sheet.dropna(how="all").dropna(axis=1, how="all") for name, sheet in sheets.items()}
    full = [name for name, sheet in sheets.items() if len(sheet) > 1 and sheet.shape[1] > 1] or list(sheets)
    if len(sheets) > 1:
        notes.append(f"sheet `{full[0]}` of {len(sheets)}")
    return io.BytesIO(sheets[full[0]].to_csv(index=False, header=False).encode())


def _read_json(path: Path) -> pd.DataFrame:
    """JSON lines, or a JSON list of records; a line with `start` and a list `target` (GluonTS) becomes its rows."""
    pd = pandas()
    lines = path.read_bytes()[:4096].lstrip()[:1] != b"["
    table = pd.read_json(path, lines=lines, dtype=False, convert_dates=False)
    if lines and len(table) == 1 and bool(table.map(lambda cell: isinstance(cell, dict)).all(axis=None)):
        return pd.read_json(path, dtype=False, convert_dates=False)  # as pandas writes it, by columns
    if not {"start", "target"} <= set(table) or not table["target"].map(lambda v: isinstance(v, list)).all():
        return table
    name = next((c for c in ("item_id", "unique_id", "id") if c in table), "")
    if "freq" not in table:
        raise VqtoolError("lines with `start` and `target` have no `freq`", hint='add "freq": "h" to every line')
    steps = table["freq"].replace({"H": "h", "T": "min", "M": "MS"})
    each = zip(table[name] if name else range(len(table)), table["start"], table["target"], steps, strict=True)

    def rows(one: object, start: str, values: list[float], freq: str) -> Any:
        times = pd.date_range(start, periods=len(values), freq=freq)
        return pd.DataFrame({"item_id": str(one), "timestamp": times, "target": values})

    return pd.concat([rows(*line) for line in each], ignore_index=True)


def _read_parquet(path: Path) -> pd.DataFrame:
    """A Parquet file, its names and its size checked by its header first."""
    try:
        from pyarrow import types
        from pyarrow.parquet import read_metadata, read_table
    except ImportError as error:
        raise missing_extra("pyarrow", "forecast", "reading Parquet") from error
    header = read_metadata(path)
    schema = header.schema.to_arrow_schema()
    no_twins(schema.names, path)
    if header.num_rows * header.num_columns * CELL > max(UNPACKED, RATIO * path.stat().st_size):
        raise VqtoolError(
            f"`{path.name}` promises {header.num_rows:,} rows of {header.num_columns} columns: more than {RATIO} times "
            "its size",
            hint="write it as CSV, or in several files",
        )
    texts = [column.name for column in schema if types.is_string(column.type) or types.is_large_string(column.type)]
    read_table(path, columns=texts).validate(full=True)  # text that is not UTF-8 would fail later, where it is used
    return _indexed(pandas().read_parquet(path))


def _indexed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with what its index says as columns, and its dates and periods as stamps; a mere count says nothing."""
    table = _named_index(table)
    for name in table.columns:
        kind = pandas().api.types.infer_dtype(table[name]) if table[name].dtype.kind == "O" else ""
        if kind == "period":
            table[name] = pandas().PeriodIndex(table[name]).to_timestamp()
        elif kind == "date":
            table[name] = pandas().to_datetime(table[name])
    return table


def _named_index(table: pd.DataFrame) -> pd.DataFrame:
    index = table.index
    if index.nlevels == 1 and index.name is None and index.dtype.kind not in "MOSU":
        return table
    levels = index.levels if index.nlevels > 1 else [index]
    other = "unique_id" if index.nlevels > 1 else "Unnamed: 0"
    usual = ["ds" if level.dtype.kind == "M" else other for level in levels]
    called = [default if name is None else name for name, default in zip(index.names, usual, strict=True)]
    return table.reset_index(names=called)
