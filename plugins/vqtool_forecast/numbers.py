"""From cells to numbers: thousands marks, decimal commas, currency and per cent signs; two readings are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool_forecast.dialect import MISSING
from vqtool_forecast.read_table import Table

if TYPE_CHECKING:
    import pandas as pd

Decimal = Literal["auto", ".", ","]
# what stands for a missing value in a column of numbers
NOTHING = {*(word.lower() for word in MISSING), "-", "--", "---", ".", "..", "...", ":", "?", "*", "n.a.", "n.a",
           "n.d.", "nd", "n/d", "k.a.", "s.d.", "nil", "missing", "no data", "nodata", "not available", "err", "error",
           "bad", "#div/0!", "#value!", "#ref!", "#num!", "#name?", "#null!"}  # fmt: skip
SIGNS = "€$£¥₹%"
LARGEST = 1e150  # beyond it a square overflows
BETWEEN_DIGITS = r"(?<=\d)[ \u00a0\u202f'’](?=\d{3}(?!\d))"
# 1,234 and, in India, 12,34,567
GROUPED = {
    ",": r"[-+]?[1-9]\d{0,2}(?:,\d{2,3})*,\d{3}(?:\.\d*)?",
    ".": r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?",
}  # 1,234; 12,34,567
PLAIN = {".": r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", ",": r"[-+]?(?:\d+,?\d*|,\d+)(?:[eE][-+]?\d+)?"}
WAYS = {".": "a decimal point", ",": "a decimal comma"}


@dataclass
class Numbers:
    """Columns of numbers; `wrong` are the cells that are none, by column and row."""

    columns: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    wrong: dict[str, dict[int, str]] = field(default_factory=dict)


def is_text(column: pd.Series) -> bool:
    """Whether a column has text in it."""
    from pandas.api.types import infer_dtype, is_numeric_dtype

    return not is_numeric_dtype(column) and infer_dtype(column, skipna=True) in ("string", "mixed", "mixed-integer")


def is_flag(column: pd.Series) -> bool:
    """Whether a column holds true and false, and perhaps gaps."""
    from pandas.api.types import infer_dtype

    return bool(infer_dtype(column, skipna=True) == "boolean")


def choose(good: Iterable[str]) -> str | None:
    """The hint that reads only the columns that are numbers; None where there are none."""
    names = list(good)[:12]
    return (
        f"choose the columns that are series: -s 'data.series={json.dumps(names, ensure_ascii=False)}'"
        if names
        else None
    )


def is_mostly_words(column: pd.Series) -> bool:
    """Whether a column of text has fewer numbers than other text in its first thousand rows."""
    if not is_text(column):
        return False
    text = cleaned(column.head(1000))
    number = text.str.fullmatch("|".join([*GROUPED.values(), *PLAIN.values()])).to_numpy(dtype=bool)
    some = text != ""
    return bool(some.any()) and int((number & some).sum()) < 0.5 * int(some.sum())


def cleaned(column: pd.Series) -> pd.Series:
    """Cells without signs of currency and per cent and without blanks in thousands; what is missing is empty."""
    import pandas as pd

    missing = column.isna()
    text = pd.Series(column.astype(str).to_numpy(dtype=object), index=column.index, dtype="str").str.strip()
    text = text.mask(missing | text.str.lower().isin(NOTHING), "")
    text = text.str.replace("−", "-", regex=False).str.replace(rf"\s*[{SIGNS}]\s*", "", regex=True)
    text = text.str.replace(r"^\((.*)\)$|^([\d.,' ]+)-$", r"-\1\2", regex=True)
    return text.str.replace(BETWEEN_DIGITS, "", regex=True)


def read_numbers(table: Table, names: list[str], decimal: Decimal, notes: list[str]) -> Numbers:
    """The columns `names` as float64; NaN where there is no number.

    Raises:
        VqtoolError: the marks in a column can be read in two ways, or contradict those of another.
    """
    found = Numbers()
    texts = {}
    as_written = _as_written(table, names, decimal)
    for name in names:
        column = table.frame[name]
        if column.dtype.kind in "mMc":
            what = {"m": "time differences", "M": "dates", "c": "complex numbers"}[column.dtype.kind]
            good = (c for c in names if table.frame[c].dtype.kind in "iuf")
            raise VqtoolError(f"series `{name}` holds {what}, not numbers", hint=choose(good))
        if name in as_written:
            texts[name] = cleaned(as_written[name])
        elif is_text(column):
            texts[name] = cleaned(column)
            _note_signs(column, name, notes)
        else:
            found.columns[name] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    mark = _decimal_mark(texts, found, table, notes) if decimal == "auto" else decimal
    for name, text in texts.items():
        found.columns[name], found.wrong[name] = _parsed(text, mark)
    return found


def _as_written(table: Table, names: list[str], decimal: Decimal) -> dict[str, pd.Series]:
    """The texts of those columns of numbers that may have been written with another decimal mark, by name."""
    doubtful = [
        name for name in names
        if (_may_be_thousands(table.frame[name]) if decimal == "auto"
            else decimal == "," and table.frame[name].dtype.kind == "f")
    ]  # fmt: skip
    if table.text is None or not doubtful:
        return {}
    texts = table.text(doubtful).loc[table.frame.index]  # the file is read once more, not once for each column
    certain = decimal == "," or table.semicolons
    return {name: texts[name] for name in doubtful
            if certain or bool(texts[name].str.strip(" +-").str.isdigit().any())}  # fmt: skip


def _may_be_thousands(column: pd.Series) -> bool:
    """Whether numbers may have been thousands with a point: all below 1 000, some whole, some of three decimals."""
    if column.dtype.kind != "f":
        return False
    values = column.to_numpy()
    values = values[np.isfinite(values)]
    for some in (values[:100], values):
        if not len(some) or (np.abs(some) >= 1000).any():
            return False
        thousands = some * 1000
        if (np.abs(thousands - np.round(thousands)) > 1e-6).any():
            return False
    whole = values == np.round(values)
    return bool((~whole & (np.abs(values) >= 1)).any() and not (~whole & (np.abs(values) < 1)).any())


def _note_signs(column: pd.Series, name: str, notes: list[str]) -> None:
    """Signs that were taken off numbers are noted."""
    text = column.dropna().astype(str)
    for form, what in ((r"\s*\(.*\)\s*", "in brackets"), (r"\s*[\d.,' ]+-\s*", "with a minus behind")):
        if many := int(text.str.fullmatch(form).sum()):
            notes.append(f"`{name}`: {many} numbers {what} read as negative")
    for sign in SIGNS:
        if many := int(text.str.contains(sign, regex=False).sum()):
            notes.append(f"`{name}`: the sign {sign} taken off {many} numbers")
    nothing = text.str.strip().str.lower().isin(NOTHING)
    if many := int(nothing.sum()):
        words = ", ".join(f"`{word}`" for word in text[nothing].str.strip().unique()[:5])
        notes.append(f"`{name}`: {many} cells are missing values: {words}")


def _decimal_mark(texts: dict[str, pd.Series], found: Numbers, table: Table, notes: list[str]) -> Decimal:
    """The decimal mark of a file, as the columns that can be read in one way only show it."""
    proof: dict[str, tuple[str, int]] = {}
    proven: set[str] = set()
    doubtful: list[tuple[str, int, str]] = []
    for name, text in texts.items():
        grouped = {mark: text.str.fullmatch(form).to_numpy(dtype=bool) for mark, form in GROUPED.items()}
        for mark, other in ((".", ","), (",", ".")):
            sure = text.str.fullmatch(PLAIN[mark]) & text.str.contains(mark, regex=False)
            sure = sure.to_numpy(dtype=bool) & ~grouped[mark]
            both = grouped[other] & text.str.contains(mark, regex=False).to_numpy(dtype=bool)
            both |= grouped[other] & (text.str.count(re.escape(other)) > 1).to_numpy(dtype=bool)
            if (sure | both).any():
                proven.add(name)
                proof.setdefault(mark, (name, int((sure | both).argmax())))
        for mark in GROUPED:
            if grouped[mark].any():
                doubtful.append((name, int(grouped[mark].argmax()), mark))
    decided = _one_mark(proof, doubtful, texts, table)
    if decided == "," and table.text is not None:  # 1.234 beside 1,5 may be more than a thousand
        for name, row, mark in doubtful:
            if mark == "." and name not in proven:
                raise _two_ways(name, str(texts[name].iloc[row]), row)
        for name, values in found.columns.items():
            parts = np.isfinite(values) & (np.trunc(values) != values)
            if parts.any():
                raise _two_ways(name, f"{values[parts.argmax()]:.10g}", int(parts.argmax()))
    if decided == ",":
        notes.append("numbers with a decimal comma")
    if many := sum(1 for _, _, mark in doubtful if mark != decided):
        notes.append(f"thousands marked by `{'.' if decided == ',' else ','}` in {many} columns")
    return decided


def _two_ways(name: str, cell: str, row: int) -> VqtoolError:
    return VqtoolError(
        f"`{cell}` in row {row + 1} of `{name}` has a decimal point; others have a comma",
        hint="write all numbers in one way, or name the decimal mark of all, the other marks thousands: "
        '-s data.decimal="," or -s data.decimal="."',
    )


def _one_mark(
    proof: dict[str, tuple[str, int]],
    doubtful: list[tuple[str, int, str]],
    texts: dict[str, pd.Series],
    table: Table,
) -> Decimal:
    if len(proof) == 2:
        name, row = proof["."]
        raise _two_ways(name, str(texts[name].iloc[row]), row)
    if not proof and doubtful:
        name, row, mark = doubtful[0]
        cell = str(texts[name].iloc[row])
        whole, part = cell.replace(mark, ""), cell.replace(mark, ".")
        plain = [v for v in texts[name] if v.lstrip("+-").isdigit()]
        if mark == "." and not plain and not table.semicolons:
            return "."  # all have three decimals
        beside = f" (beside `{plain[0]}`)" if plain else ""
        other = "." if mark == "," else ","
        raise VqtoolError(
            f"`{cell}` in row {row + 1} of `{name}`{beside} may be {whole} or {part}",
            hint=f'say which the decimal mark is: -s data.decimal="{other}" reads {whole}, '
            f'-s data.decimal="{mark}" reads {part}',
        )
    return "," if "," in proof else "."


def _parsed(text: pd.Series, mark: str) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Cleaned cells as numbers, and those that are none."""
    import pandas as pd

    other = "." if mark == "," else ","
    plain = text.str.fullmatch(PLAIN[mark]).to_numpy(dtype=bool)
    grouped = text.str.fullmatch(GROUPED[other]).to_numpy(dtype=bool)
    bare = text.where(~grouped, text.str.replace(other, "", regex=False)).str.replace(mark, ".", regex=False)
    values = np.full(len(text), np.nan)
    good = plain | grouped
    values[good] = pd.to_numeric(bare[good]).to_numpy(dtype=np.float64)
    infinite = text.str.fullmatch(r"[-+]?inf(inity)?", case=False).to_numpy(dtype=bool)
    wrong = np.flatnonzero(~good & ~infinite & (text != "").to_numpy(dtype=bool))
    return values, {int(row): str(text.iloc[row]) for row in wrong}


def series_values(numbers: Numbers, column: str, rows: NDArray[np.intp], name: str) -> NDArray[np.float64]:
    """A column's values in `rows` (from 0 on); infinities are missing.

    Raises:
        VqtoolError: one of them is not a number, or is so large that its square overflows.
    """
    values = numbers.columns[column][rows]
    wrong = numbers.wrong.get(column, {})
    if wrong and (bad := [row for row in rows.tolist() if row in wrong]):
        good = choose(c for c in numbers.columns if not numbers.wrong.get(c))
        raise VqtoolError(
            f"series `{name}`: `{wrong[bad[0]]}` in row {bad[0] + 1} is not a number",
            hint=good or "a number there, or an empty cell where it is missing",
        )
    finite = np.isfinite(values)
    values = np.where(finite, values, np.nan)
    if (np.abs(values[finite]) > LARGEST).any():
        row = int(np.nanargmax(np.abs(values)))
        raise VqtoolError(
            f"series `{name}`: {values[row]:g} in row {rows[row] + 1} is too large: its square overflows",
            hint="write the values in a larger unit, so that none is above 1e150",
        )
    return values
