"""How a text table is written: its encoding, what separates its columns, and which of its first lines are no data."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from vqtool.errors import VqtoolError, missing_extra
from vqtool.untrusted import no_twins

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
BLANKS = r"\s+"
HEAD, LINES = 2**16, 30  # bytes and lines that are looked at
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
LEGACY = ["cp1252", "cp1250", "cp1251", "cp1253", "cp932", "gb18030", "big5", "euc_kr"]  # what may be guessed
MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>", "#N/A", "#NA",
           "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"]  # fmt: skip  # as pandas has it
NUMBER = re.compile(r"[-+(]?\s*[€$£¥₹]?\s*[-+]?(\d[\d.,' \u00a0]*|[.,]\d+)([eE][-+]?\d+)?\s*[%€$£¥₹)]?")
DATE = re.compile(r"\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?([ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([ T].*)?")
CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?")


def plain(name: object) -> str:
    """A column's name in lower case, without blanks, marks and units."""
    return re.sub(r"[\s_./-]|\[.*\]|\(.*\)", "", str(name).lower())


@dataclass(frozen=True)
class Dialect:
    """The arguments with which pandas reads a file."""

    encoding: str
    separator: str
    names: list[str]
    skip: list[int]  # lines that are no data, counted from 0
    trailing: bool = False  # every line of data ends with a separator, the header does not

    def arguments(self) -> dict[str, Any]:
        """The arguments of `pandas.read_csv`."""
        how: dict[str, Any] = {"sep": self.separator, "encoding": self.encoding, "skiprows": self.skip}
        how |= {"names": self.names, "header": None, "index_col": False}
        return how | ({"usecols": range(len(self.names))} if self.trailing else {})


def encoding_of(source: io.BytesIO | Path, asked: str, notes: list[str]) -> str:
    """The encoding asked for, the one that a byte order mark names, UTF-8, or the likeliest older one: that is noted.

    Raises:
        VqtoolError: there is no such encoding, or the bytes fit none.
    """
    if asked:
        try:
            codecs.lookup(asked)
        except LookupError:
            raise VqtoolError(f"there is no encoding `{asked}`", hint="utf-8, latin-1, cp1252, utf-16") from None
        return asked
    head = next(_chunks(source), b"")
    for mark, name in MARKS:
        if head.startswith(mark):
            notes.extend([f"encoding `{name}`"] if name == "utf-16" else [])
            return name
    nul = (head[:1000:2].count(0), head[1:1000:2].count(0))
    if max(nul) > len(head[:1000]) / 8:  # every second byte of Latin text in UTF-16
        name = "utf-16-be" if nul[0] > nul[1] else "utf-16-le"
        notes.append(f"encoding `{name}`")
        return name
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(source):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        name = _legacy(b"".join(_chunks(source)))
        notes.append(f"encoding `{name}`, likely from its bytes (not UTF-8); another: -s data.encoding=...")
        return name
    return "utf-8"


def _chunks(source: io.BytesIO | Path) -> Iterator[bytes]:
    """A file's bytes, a megabyte at a time."""
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.getbuffer()) as file:
        while chunk := file.read(2**20):
            yield chunk


def _legacy(content: bytes) -> str:
    """The likeliest of the encodings from before UTF-8, judged by the lines that are not ASCII."""
    try:
        from charset_normalizer import from_bytes
    except ImportError as error:
        raise missing_extra("charset-normalizer", "forecast", "reading a file that is not UTF-8") from error
    telling = b"\n".join(line for line in content.splitlines() if not line.isascii())[:HEAD]
    western = telling.decode("cp1252", "replace")
    letters = [c for c in western if c.isalpha()]
    few = sum(not c.isascii() for c in letters) < 0.4 * len(letters)  # in Cyrillic or Greek most are not ASCII
    if few and "\ufffd" not in western and all(c.isascii() or c.isalpha() or c in "°µ²³€£·–" for c in western):
        found = from_bytes(telling, cp_isolation=LEGACY).best()
        likely = found.encoding if found else "cp1252"
        return "cp1252" if re.search("[äöüßéèàçñåøæÄÖÜÅØ°²³µ€]", western) else likely
    found = from_bytes(telling, cp_isolation=LEGACY).best()
    if found is None:
        raise VqtoolError("the file's bytes are not text in UTF-8", hint="its encoding, as -s data.encoding=latin-1")
    return str(found.encoding)


def dialect_of(
    source: io.BytesIO | Path, separator: str | None, asked: str, path: Path, notes: list[str], header: bool = True
) -> Dialect:
    """What a file's first lines say of the rest; what was assumed is noted. Without `header` the first line is data.

    Raises:
        VqtoolError: the first line is data, or two columns have one name.
    """
    encoding = encoding_of(source, asked, notes)
    lines = _first_lines(source, encoding)
    full = [i for i, line in enumerate(lines) if line.strip(' ,;\t"\r')]
    skip = [i for i in range(len(lines)) if i not in full]
    if full and (own := re.fullmatch(r'"?sep=(.)"?', lines[full[0]].strip())):
        separator = own[1]
        skip.append(full.pop(0))
        notes.append(f"columns separated by `{separator}`, as the first line says")
    if not full:
        raise ValueError("no columns to parse from file")
    first = lines[full[0]]
    if comments := _comments([lines[i] for i in full], header):
        notes.append(f"lines of comment before the table skipped: {comments}, the first `{first[:40]}`")
        skip += full[:comments]
        full = full[comments:]
        if not full:
            raise ValueError("nothing but lines of comment")
        first = lines[full[0]]
    found = separator or _separator([lines[i] for i in full])
    if begin := _preamble([lines[i] for i in full], found):
        notes.append(f"{begin} lines before the table skipped, the first `{first[:40]}`")
        skip += full[:begin]
        full = full[begin:]
    if separator is None and found != ",":
        notes.append(f"columns separated by {SEPARATORS.get(found, 'blanks')}")
    rows = [_fields(lines[i], found) for i in full]
    if not header:
        names = _default_names(rows[0])
        notes.append(f"no line of names: the columns are {', '.join(f'`{name}`' for name in names[:5])}"
                     + (", ..." if len(names) > 5 else ""))  # fmt: skip
        return Dialect(encoding, found, names, sorted(skip))
    _check_header(rows, " " if found == BLANKS else found)
    many = _header_lines(rows)
    if many > 1:
        rows = [_joined_names(rows[:many]), *rows[many:]]
        notes.append(f"names from the first {many} lines, like `{rows[0][-1]}`")
    if rows[0][-1] == "" and all(len(row) == len(rows[0]) - 1 for row in rows[1:]):
        rows[0].pop()  # a separator behind the last name
    names, trailing = _names(rows, path, notes)
    skip += full[:many]
    if many == 1 and _is_units(rows):
        skip.append(full[1])
        notes.append(f"the second line has units, not values: {', '.join(f'`{u}`' for u in rows[1] if u)[:80]}")
    return Dialect(encoding, found, names, sorted(skip), trailing)


def _comments(lines: list[str], header: bool) -> int:
    """How many lines that begin with `#` stand before the names, of which there may be some behind a `#` as well."""
    many = next((i for i, line in enumerate(lines) if not re.match(r"#([^,;\t]|$)", line)), len(lines))
    return many - 1 if many and header and _names_in_a_comment(lines[many - 1 :]) else many


def _names_in_a_comment(lines: list[str]) -> bool:
    """Whether `#date,load` stands before lines of data of as many cells."""
    mark = _separator(lines)
    rows = [_fields(line, mark) for line in lines[:3]]
    same = len(rows) > 1 and len({len(row) for row in rows}) == 1
    return same and len(rows[0]) > 1 and any(_is_plain(cell) for cell in rows[1])


def _header_lines(rows: list[list[str]]) -> int:
    """How many lines name the columns: two or three where the first has blanks or repeats itself, as groups do."""
    if len(rows) < 5:
        return 1
    first = rows[0][1:]
    groups = len({name for name in first if name}) < len([name for name in first if name]) or (
        any(not name for name in first[:-1]) and any(first)
    )
    words = [not any(_is_plain(cell) for cell in row) and any(row) for row in rows[:4]]
    same = len({len(row) for row in rows[:4]}) == 1
    return next((i for i, word in enumerate(words) if not word), 1) if groups and same and all(words[:2]) else 1


def _joined_names(rows: list[list[str]]) -> list[str]:
    """The names of all lines over a column, a group's name over all of its columns; the last one over the first."""
    names: list[list[str]] = [[] for _ in rows[0]]
    for number, row in enumerate(rows):
        group = ""
        for i, cell in enumerate(row):
            group = cell or (group if number < len(rows) - 1 and i else "")
            if group and group not in names[i]:
                names[i].append(group)
    return [name[-1] if i == 0 and name else " ".join(name) for i, name in enumerate(names)]


def _is_plain(cell: str) -> bool:
    """Whether a cell is a number or a date."""
    return bool(NUMBER.fullmatch(cell) or DATE.fullmatch(cell))


def _first_lines(source: io.BytesIO | Path, encoding: str) -> list[str]:
    """Those that are looked at, and all lines of comment before them."""
    head = next(_chunks(source), b"")
    text = codecs.getincrementaldecoder(encoding)("strict").decode(head, final=len(head) < 2**20).lstrip("\ufeff")
    few = text.count("\n") < LINES
    lines = text.splitlines() if few else [line.rstrip("\r") for line in text.split("\n")]
    begin = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), 0)
    return lines[: begin + LINES]


def _unquoted(lines: list[str]) -> list[str]:
    """Lines with a letter in place of each cell in quotes."""
    return [re.sub(r'"[^"]*"', "q", line) for line in lines]


def _preamble(lines: list[str], separator: str) -> int:
    """How many lines stand before a table whose own lines have two or more cells beyond theirs."""
    counts = [len(line.split()) if separator == BLANKS else line.count(separator) + 1 for line in _unquoted(lines)]
    usual, many = Counter(counts[len(counts) // 2 :]).most_common(1)[0]
    mark = re.escape(separator)
    titles = [re.match(rf"[^{mark}]+{mark}+\s*$", line) for line in _unquoted(lines)]
    begin = next((i for i, count in enumerate(counts) if count == usual and (separator == BLANKS or not titles[i])), 0)
    if begin and counts[begin - 1] == usual + 1 and lines[begin - 1].rstrip().endswith(separator):
        begin -= 1  # a header whose last name is empty
    short = all(count + 1 < usual or count == 1 or title for count, title in zip(counts, titles[:begin], strict=False))
    return begin if begin and usual > 1 and short and many > 0.6 * len(counts[len(counts) // 2 :]) else 0


def _separator(lines: list[str]) -> str:
    """The one that most lines have as often as the header; the header's commonest where none is so regular."""
    plain = _unquoted(lines)
    many = {mark: plain[0].count(mark) for mark in SEPARATORS}

    def regular(mark: str) -> bool:
        same = sum(0 <= line.count(mark) - many[mark] <= 1 for line in plain)
        return many[mark] > 0 and same >= 0.9 * len(plain)

    good = [mark for mark in SEPARATORS if regular(mark)]
    if not any(many.values()):
        later = {mark: sum(mark in line for line in plain[len(plain) // 2 :]) for mark in SEPARATORS}
        if max(later.values()) > 0.3 * len(plain):  # lines of text before the table
            return max(later, key=lambda mark: later[mark])
        if len(plain[0].split()) > 1:
            return BLANKS
    return max(good or SEPARATORS, key=lambda mark: many[mark])


def _fields(line: str, separator: str) -> list[str]:
    """The cells of a line."""
    if separator == BLANKS:
        return next(csv.reader([re.sub(r"\s+", " ", line.strip())], delimiter=" "), [])
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]


def _names(rows: list[list[str]], path: Path, notes: list[str]) -> tuple[list[str], bool]:
    """The columns' names; a name is added where the header has one fewer than the lines, as of row names."""
    if rows[0][0][:1] == "#" and len(rows[0]) > 1:
        rows = [[rows[0][0][1:].strip(), *rows[0][1:]], *rows[1:]]
    names = [name.strip("'").strip() if name[:1] == name[-1:] == "'" else name for name in rows[0]]
    longer = Counter(len(row) for row in rows[1:]).most_common(1) == [(len(names) + 1, len(rows) - 1)]
    no_twins((name for name in names if name), path)
    trailing = longer and all(row[-1] == "" for row in rows[1:])
    if trailing:
        notes.append("every line of data ends with a separator")
    elif longer and all(DATE.fullmatch(row[0]) and CLOCK.fullmatch(row[1]) for row in rows[1:]):
        names.insert(1, "clock")
    elif longer:
        names.insert(0, "")
        notes.append("the first column has no name")
    names = [name or f"Unnamed: {i}" for i, name in enumerate(names)]
    no_twins(names, path)
    return names, trailing


def _check_header(rows: list[list[str]], mark: str) -> None:
    """A first line that looks like the second is data."""
    head, first = rows[0], rows[1] if len(rows) > 1 else []
    numbers = [bool(cell) and _is_plain(cell) for cell in head]
    figures = [float(cell) for cell in head if re.fullmatch(r"-?\d+(\.\d+)?", cell)]
    steps = [b - a for a, b in pairwise(figures)]
    whole = all(figure.is_integer() for figure in figures)
    counted = whole and len(set(steps)) == 1 and (len(steps) > 1 or steps[0] == 1)  # as years, or columns' numbers
    below = [_is_plain(cell) for cell in first]
    dated = any(DATE.fullmatch(a) and DATE.fullmatch(b) for a, b in zip(head, first, strict=False))
    same = numbers == below and sum(numbers) > 2 and len(set(figures)) > 1
    if (all(numbers) and not counted and (len(head) > 1 or len(rows) > 9)) or dated or (same and not counted):
        raise VqtoolError(
            f"the first line is data, not the columns' names: `{mark.join(head)[:60]}`",
            hint="-s data.header=false reads it as data; or put a line of names before it"
            + (f": {names}" if len(names := mark.join(_default_names(head))) < 200 else ""),
        )


def _default_names(row: list[str]) -> list[str]:
    """Names for columns that have none."""
    time = next((i for i, cell in enumerate(row) if DATE.fullmatch(cell)), -1)
    values = [i for i in range(len(row)) if i != time]
    called = {time: "ds"} | {i: f"v{n}" if len(values) > 1 else "y" for n, i in enumerate(values, 1)}
    return [called[i] for i in range(len(row))]


def _is_units(rows: list[list[str]]) -> bool:
    """Whether the second line has words over columns of numbers, and no number or date at all."""
    if len(rows) < 4:
        return False

    units, others = rows[1], rows[2:]
    words = [i for i, cell in enumerate(units) if cell not in MISSING]
    over = [i for i in words if all(i < len(row) and (_is_plain(row[i]) or row[i] in MISSING) for row in others)]
    return not any(_is_plain(cell) or re.search(r"\d{4}", cell) for cell in units) and any(
        any(_is_plain(row[i]) for row in others) for i in over
    )
