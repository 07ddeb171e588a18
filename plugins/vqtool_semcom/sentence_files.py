"""Sentences and labels as people keep them: tables with named columns, lines with the label first, any encoding."""

from __future__ import annotations

import codecs
import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vqtool.errors import VqtoolError
from vqtool.untrusted import no_twins
from vqtool_images.splits import PARTS, Report

TEXTS = ("text", "sentence", "review", "content", "tweet", "comment", "message", "utterance", "headline", "question",
         "document", "body", "phrase", "reviewtext", "review_text", "sms")  # fmt: skip
LABELS = ("label", "labels", "class", "category", "sentiment", "target", "intent", "polarity", "stars", "rating",
          "emotion", "y")  # fmt: skip
SPLITS = ("split", "set", "partition", "subset", "part")
LINES = (".jsonl", ".ndjson", ".json")
TABLES = (".csv", ".tsv", ".tab", *LINES)
LONGEST = 2**24  # characters of a cell
FORM = "each line is `label word word ...`: the label first, then blanks and the words"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a table hold the text and the label, by name or by number from 1; empty: the usual names."""

    text: str = ""
    label: str = ""
    encoding: str = ""


Line = tuple[int, str, list[str]]  # its number, the label, the words


def sentence_files(path: Path) -> dict[str, Path]:
    """The file of each part: in a folder those called train, dev and test; one file alone is `train`."""
    if not path.is_dir():
        return {"train": path}
    files: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        part = PARTS.get(file.stem.lower(), "")
        part = "dev" if part == "valid" else part
        if part and file.suffix.lower() in (".txt", *TABLES):
            other = files.setdefault(part, file)
            if other != file:
                message = f"`{other.name}` and `{file.name}` in `{path}` would both be `{part}`"
                raise VqtoolError(message, hint="keep one of them there")
    if "train" not in files:
        tables = [p for p in sorted(path.iterdir()) if p.suffix.lower() in TABLES]
        hint = "-s data.path=FOLDER with train.txt, dev.txt and test.txt, a label and a sentence in each line"
        if tables:
            hint = f"-s data.path={tables[0]}"
        raise VqtoolError(f"cannot read `{path / 'train.txt'}`, nor train.csv or train.tsv there", hint=hint)
    return {part: files[part] for part in ("train", "dev", "test") if part in files}


def by_part(path: Path, columns: Columns, report: Report) -> tuple[dict[str, Path], dict[str, list[Line]]]:
    """The file and the sentences of each part: of a folder's files, or of one table by its column `split`."""
    files, parts = sentence_files(path), list[str]()
    read = {name: sentences(file, columns, report, parts) for name, file in files.items()}
    if path.is_dir() or "train" not in parts:
        return files, read
    divided: dict[str, list[Line]] = {name: [] for name in ("train", "dev", "test") if name in parts}
    for row, part in zip(read["train"], parts, strict=True):
        divided[part].append(row)
    counts = ", ".join(f"{len(rows)} `{name}`" for name, rows in divided.items())
    report.add(f"the table says which part a row is of: {counts}")
    return dict.fromkeys(divided, path), divided


def sentences(path: Path, columns: Columns, report: Report, parts: list[str] | None = None) -> list[Line]:
    """(number, label, words) of every line or row of a file; `parts` gets that of each, where a column says it."""
    text = decoded(path, columns.encoding, report)
    if path.suffix.lower() in TABLES or columns.text or columns.label:
        return _table(path, text, columns, report, [] if parts is None else parts)
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # and at no other sign that Unicode has for it
        label, *words = line.split() or [""]
        if label and not words:
            raise VqtoolError(f"line {number} of `{path}` has no words after its label", hint=FORM)
        if label:
            rows.append((number, label, words))
    if not rows:
        raise VqtoolError(f"`{path}` has no sentences", hint=FORM)
    return rows


def decoded(path: Path, encoding: str, report: Report) -> str:
    """The text of a file: in `encoding`, or UTF-8, UTF-16 or Windows-1252 by what its bytes are."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise VqtoolError(
            f"cannot read `{path}`: {error.strerror or error}",
            hint="-s data.path=FILE.csv, or a folder with train.txt, dev.txt and test.txt",
        ) from error
    try:
        if encoding:
            return content.decode(encoding).removeprefix("\ufeff")
        found = _utf16(content)
        if found:
            report.add(f"`{path.name}` is read as UTF-16")
            return content.decode(found).removeprefix("\ufeff")
    except (UnicodeError, LookupError) as error:
        name = encoding or "UTF-16"
        raise VqtoolError(
            f"`{path}` cannot be read as {name}: {error}", hint="-s data.encoding=NAME, as utf-8 or cp1251"
        ) from error
    text = content.decode("utf-8-sig", errors="replace")
    wrong = text.count("\ufffd")
    if not wrong:
        return text
    if sum(ord(letter) > 127 for letter in text) - wrong >= wrong:
        report.add(f"`{path.name}` has {wrong} characters that are not UTF-8; they are replaced")
        return text
    report.add(f"`{path.name}` is not UTF-8, and is read as Windows-1252 (-s data.encoding=NAME reads it otherwise)")
    return "".join(bytes([byte]).decode("cp1252", "replace") if 127 < byte < 160 else chr(byte) for byte in content)


def _utf16(content: bytes) -> str | None:
    """UTF-16 by its mark, or by zeros in every second place."""
    if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    some = content[:2000]
    even, odd = some[::2].count(0), some[1::2].count(0)
    if max(even, odd) > len(some) / 4 and min(even, odd) < len(some) / 50:
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def _table(path: Path, text: str, columns: Columns, report: Report, parts: list[str]) -> list[Line]:
    """Rows of a table with a column of text and one of labels, and perhaps one of parts."""
    rows = _records(path, text) if path.suffix.lower() in LINES else _rows(path, text)
    if not rows:
        raise VqtoolError(f"`{path}` has no rows", hint="a row for each sentence, with its label")
    at, named = _places(path, rows, columns, report)
    found, ragged, empty = [], 0, 0
    width = len(rows[0][1])
    division = next((k for k, name in enumerate(rows[0][1]) if named and name.lower() in SPLITS), None)
    for number, cells in rows[named:]:
        if len(cells) != width:
            ragged += 1
            continue
        words, label = cells[at[0]].split(), cells[at[1]].strip()
        if words and label:
            found.append((number, label, words))
            part = PARTS.get(cells[division].lower(), "") if division is not None else ""
            parts.append("dev" if part == "valid" else part)
        else:
            empty += 1
    if ragged:
        report.add(f"{ragged} of {len(rows) - named} rows of `{path.name}` are skipped: they have not {width} cells")
    if empty:
        report.add(f"{empty} of {len(rows) - named} rows of `{path.name}` are skipped: no text, or no label")
    if not found:
        raise VqtoolError(f"`{path}` has no sentences", hint="; ".join(report.notes) or "a row for each sentence")
    if unknown := parts.count("") if any(parts) else 0:
        raise VqtoolError(
            f"{unknown} rows of `{path.name}` name none of the parts train, dev (or valid) and test",
            hint=f"write one of them into the column `{rows[0][1][division or 0]}` of every row, or rename the column",
        )
    _check_labels(path, found, rows[0][1][at[1]] if named else str(at[1] + 1), rows[0][1])
    return found


def text_column(path: Path, content: str, asked: str, usual: str, report: Report) -> list[str]:
    """The texts of a table that needs no labels: of the column `asked`, else `usual` or one of the usual names.

    Raises:
        VqtoolError: which column holds the texts is not known.
    """
    rows = _records(path, content) if path.suffix.lower() in LINES else _rows(path, content)
    head = [cell.strip() for cell in rows[0][1]] if rows else []
    if asked.isdigit() and asked not in head and 0 < int(asked) <= len(head):
        at, named = int(asked) - 1, 0
    elif asked:
        if asked not in head:
            raise VqtoolError(f"`{path.name}` has no column `{asked}`", hint=_choice_of_text(rows), where=str(path))
        at, named = head.index(asked), 1
    else:
        lower = [cell.lower() for cell in head]
        found = next((lower.index(name) for name in (usual.lower(), *TEXTS) if name in lower), None)
        if found is None:
            raise VqtoolError(
                f"which column of `{path.name}` holds the texts is not known",
                hint=_choice_of_text(rows),
                where=str(path),
            )
        at, named = found, 1
        if len(head) > 1:
            report.add(f"the text is the column `{head[at]}`")
    kept = [cells[at].strip() for _, cells in rows[named:] if len(cells) > at and cells[at].strip()]
    if len(kept) < len(rows) - named:
        report.add(f"{len(rows) - named - len(kept)} of {len(rows) - named} rows of `{path.name}` are skipped: no text")
    return kept


def _choice_of_text(rows: list[tuple[int, list[str]]]) -> str:
    """An option that reads a table: of its longest column."""
    if not rows:
        return "a row for each sentence"
    lengths = [sum(len(cells[k]) for _, cells in rows if len(cells) > k) for k in range(len(rows[0][1]))]
    return f"-s data.text={lengths.index(max(lengths)) + 1} (without names of columns), or -s data.text=NAME"


def _records(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """A header, then (line, cells) of each object of JSON lines, or of one JSON list of objects."""
    try:
        lines = enumerate(text.split("\n"), 1)
        whole = text.lstrip().startswith("[")
        found = [*enumerate(json.loads(text), 1)] if whole else [(n, json.loads(x)) for n, x in lines if x.strip()]
    except (ValueError, RecursionError) as error:
        raise VqtoolError(f"`{path}` is not JSON: {error}", hint='one {"text": ..., "label": ...} a line') from error
    if not found or not all(isinstance(record, dict) for _, record in found):
        raise VqtoolError(f"`{path}` holds no objects", hint='one {"text": ..., "label": ...} a line')
    names = list(dict.fromkeys(name for _, record in found for name in record))
    head = [(0, names)]
    return head + [(n, ["" if (v := one.get(name)) is None else str(v).strip() for name in names]) for n, one in found]


def _rows(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """(line, cells) of each row that is not empty."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[0].lower().startswith("sep=") and len(lines[0].strip()) == 5:
        mark, lines = lines[0][4], ["", *lines[1:]]
    else:
        mark = "\t" if path.suffix.lower() != ".csv" else _delimiter(lines)
    kept = [line for line in lines if line.strip()]
    if mark == "\t" and len({line.count("\t") for line in kept}) == 1:  # quotes are part of the sentences
        return [(n, [_unquoted(c) for c in line.split("\t")]) for n, line in enumerate(lines, 1) if line.strip()]
    limit = csv.field_size_limit(LONGEST)
    try:
        reader = csv.reader((f"{line}\n" for line in lines), delimiter=mark)
        rows = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise VqtoolError(f"`{path}` cannot be read as a table: {error}", hint="is a quote left open?") from error
    finally:
        csv.field_size_limit(limit)
    return [(number, [cell.strip() for cell in cells]) for number, cells in rows]


def _unquoted(cell: str) -> str:
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if whole else cell


def _delimiter(lines: Sequence[str]) -> str:
    """What the first line has between its cells."""
    first = next((line for line in lines if line.strip()), "")
    counts = Counter({mark: first.count(mark) for mark in (",", ";", "\t", "|")})
    mark, count = counts.most_common(1)[0]
    return mark if count else ","


def _places(
    path: Path, rows: list[tuple[int, list[str]]], columns: Columns, report: Report
) -> tuple[tuple[int, int], int]:
    """The places of the text and the label, and how many rows are names of columns."""
    head = [cell.strip() for cell in rows[0][1]]
    asked = [columns.text, columns.label]
    if all(name.isdigit() and name not in head for name in asked):
        places = [int(name) - 1 for name in asked]
        if not all(0 <= k < len(head) for k in places):
            raise VqtoolError(f"`{path.name}` has {len(head)} columns", hint=_choice(rows), where=str(path))
        return (places[0], places[1]), 0
    no_twins(head, path)
    lower = [cell.lower() for cell in head]
    for k, (usual, name) in enumerate(((TEXTS, columns.text), (LABELS, columns.label))):
        if name and name not in head:
            raise VqtoolError(f"`{path.name}` has no column `{name}`", hint=_choice(rows), where=str(path))
        asked[k] = name or next((head[lower.index(usual_name)] for usual_name in usual if usual_name in lower), "")
    if not all(asked) or asked[0] == asked[1]:
        raise VqtoolError(
            f"which columns of `{path.name}` hold the text and the label is not known",
            hint=_choice(rows),
            where=str(path),
        )
    if not (columns.text and columns.label):
        report.add(f"the text is the column `{asked[0]}`, the label `{asked[1]}`")
    return (head.index(asked[0]), head.index(asked[1])), 1


def _choice(rows: list[tuple[int, list[str]]]) -> str:
    """Options that read a table: of its longest column as the text, and the one of fewest values as the label."""
    head, body = rows[0][1], [cells for _, cells in rows[1:] if len(cells) == len(rows[0][1])][:1000]
    if len(head) < 2 or not body:
        return "a table has a column of texts and one of labels, with commas, semicolons or tabs between them"
    values = [[cells[k] for cells in body] for k in range(len(head))]
    text = max(range(len(head)), key=lambda k: sum(map(len, values[k])))
    label = min((k for k in range(len(head)) if k != text), key=lambda k: len(set(values[k])))
    if head[label] in values[label]:  # the first row is one like the others: no names
        return f"without a row of names: -s data.text={text + 1} -s data.label={label + 1}"
    return (
        f"-s data.text='{head[text]}' -s data.label='{head[label]}' (of {', '.join(f'`{name}`' for name in head[:8])})"
    )


def _check_labels(path: Path, found: list[Line], name: str, head: list[str]) -> None:
    """Refuse a column of labels in which most values occur once: it is of ids, or of texts."""
    different = len({label for _, label, _ in found})
    if different > max(20, len(found) // 2):
        raise VqtoolError(
            f"the column `{name}` of `{path.name}` has {different} different values on {len(found)} rows: no labels",
            hint=f"-s data.label=COLUMN, one of {', '.join(f'`{name}`' for name in head[:8])}",
            where=str(path),
        )
