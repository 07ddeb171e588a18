"""Files that are packed: a table is unpacked or read only where its size fits that of its file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from vqtool.errors import VqtoolError, missing_extra
from vqtool.untrusted import RATIO, UNPACKED, no_twins

PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")
CELL = 8  # bytes of a value in memory


def text(path: Path) -> io.BytesIO | Path:
    """What pandas is to read a text table from: the file, or where it is packed its content.

    Raises:
        VqtoolError: it unpacks to too much, or is damaged.
    """
    if path.suffix.lower() not in PACKED:
        return path
    from pandas.io.common import get_handle

    room = max(UNPACKED, RATIO * path.stat().st_size)
    try:
        with get_handle(path, "rb", is_text=False, compression="infer") as opened:
            content: bytes = opened.handle.read(room + 1)  # type: ignore[assignment]  # of a binary handle
    except ImportError as error:
        raise VqtoolError(str(error), hint="unpack the file first", where=str(path), exit_code=1) from error
    except Exception as error:  # each way of packing has errors of its own
        raise VqtoolError(f"`{path}` cannot be read: {error}", hint="it may be cut short: fetch it again") from error
    if len(content) > room:
        raise VqtoolError(
            f"`{path.name}` unpacks to more than {RATIO} times its size", hint="unpack it first", where=str(path)
        )
    return io.BytesIO(content)


def parquet(path: Path, pandas: Any) -> Any:
    """A Parquet file as a frame, its names and its size checked by its header first."""
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
            where=str(path),
        )
    texts = [column.name for column in schema if types.is_string(column.type) or types.is_large_string(column.type)]
    read_table(path, columns=texts).validate(full=True)  # text that is not UTF-8 would fail later, where it is used
    return pandas.read_parquet(path)
