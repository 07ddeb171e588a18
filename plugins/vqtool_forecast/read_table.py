"""From a file's bytes to a table: CSV or TSV in any of the usual dialects, packed or not, and Parquet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtool.errors import VqtoolError, missing_extra
from vqtool.untrusted import RATIO, UNPACKED, no_twins

if TYPE_CHECKING:
    import pandas as pd

PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")
TEXT_KINDS = (".csv", ".tsv", ".txt")
PARQUET_KINDS = (".parquet", ".pq")
MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>", "#N/A", "#NA",
           "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"]  # fmt: skip  # as pandas has it
CELL = 8  # bytes of a value in memory
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
DECIMAL_COMMA, DECIMAL_POINT = (rf"\s*[+-]?\d*{mark}\d+\s*" for mark in (",", r"\."))


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


def read_table(path: Path, notes: list[str], *, text: str = "") -> pd.DataFrame:
    """The table in a file; what was assumed about the file goes to `notes`. The column `text` is not made numbers.

    Raises:
        VqtoolError: it is not such a file, is damaged, unpacks to too much, or has fewer than two columns or no row.
    """
    kinds = [suffix.lower() for suffix in path.suffixes]
    kind = kinds[-2] if len(kinds) > 1 and kinds[-1] in PACKED else kinds[-1] if kinds else ""
    try:
        if kind in PARQUET_KINDS:
            table = _read_parquet(path)
        elif kind in TEXT_KINDS:
            table = _read_text(_unpacked(path), "\t" if kind == ".tsv" else None, text, path, notes)
        else:
            raise VqtoolError(
                f"`{path.name}` is of an unknown kind", hint="CSV (.csv, .csv.gz), TSV or Parquet (.parquet)"
            )
    except (ValueError, OSError, EOFError, csv.Error) as error:  # pandas' and pyarrow's own errors are among these
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise VqtoolError(f"`{path.name}` cannot be read: {lines[0]}") from error
    table.columns = [str(name) for name in table.columns]
    if len(table) == 0 or table.shape[1] < 2:
        raise VqtoolError(
            f"`{path.name}` has {len(table)} rows and {table.shape[1]} columns", hint="a time column and values"
        )
    return table


def _unpacked(path: Path) -> io.BytesIO | Path:
    """What pandas is to read a text table from: the file, or its content where it is packed."""
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
    source: io.BytesIO | Path, separator: str | None, text: str, path: Path, notes: list[str]
) -> pd.DataFrame:
    """CSV, separated by the commonest of comma, semicolon and tab in its header; a decimal comma is recognised."""

    def read(**how: Any) -> pd.DataFrame:
        if not isinstance(source, Path):
            source.seek(0)
        return pandas().read_csv(source, **how)

    header = str(read(sep="\x1f", nrows=0, quoting=csv.QUOTE_NONE).columns[0])  # the first line
    if re.match(r"#[^,;\t]", header):
        raise VqtoolError(
            f"the first line begins with `#`: `{header[:40]}`", hint="the header comes first: delete lines of comment"
        )
    plain = re.sub(r'"[^"]*"', "", header)
    found = separator or max(SEPARATORS, key=plain.count)
    names = next(csv.reader([header], delimiter=found), [])
    no_twins((column.strip() for column in names), path)
    if separator is None and found != ",":
        notes.append(f"columns separated by {SEPARATORS[found]}")
    how = {"sep": found} | (_as_text(text, names) if text in names else {})
    table = read(**how)
    if found == "," or _first_like(DECIMAL_COMMA, table, text) is None:
        return table
    notes.append("numbers with a decimal comma")
    table = read(**how, decimal=",")
    if at := _first_like(DECIMAL_POINT, table, text):  # 1.234 beside 1,5 may be more than a thousand
        raise VqtoolError(
            f"`{table[at[0]].iloc[at[1]]}` in row {at[1] + 1} of `{at[0]}` has a decimal point; others have a comma",
            hint="write all numbers in one way, without thousands separators",
        )
    return table


def _as_text(column: str, names: list[str]) -> dict[str, Any]:
    """How pandas keeps a column as it is written: `01`, `1E5` and `NA` are names there, and only a gap is missing."""
    missing = {name: [""] if name == column else MISSING for name in names}
    return {"dtype": {column: str}, "keep_default_na": False, "na_values": missing}


def _first_like(pattern: str, table: pd.DataFrame, text: str) -> tuple[str, int] | None:
    """The column and the place of the first text that is written so; the column `text` does not count."""
    for name, column in table.select_dtypes(exclude="number").items():
        like = column.astype(str).str.fullmatch(pattern).to_numpy(dtype=bool)
        if name != text and like.any():
            return str(name), int(like.argmax())
    return None


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
    table = pandas().read_parquet(path)
    return table.reset_index() if table.index.name else table
