"""Sentences as people keep them: tables with named columns, encodings, quotes; and every hint followed."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from tests.cli.run import within
from tests.fuzz.seeds import MODELS
from vqtool.errors import VqtoolError
from vqtool_images.splits import Report
from vqtool_semcom.data.labelled_sentences import LabelledSentences, hashed
from vqtool_semcom.sentence_files import Columns, decoded, sentences

ROWS = [(f"ein schöner Film, Nummer {i}", "gut" if i % 2 else "schlecht") for i in range(40)]


def table(path: Path, rows: list, *, dialect: str = "excel", delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, dialect, delimiter=delimiter).writerows(rows)
    return path


def words(path: Path, **named: str) -> list[tuple[str, str]]:
    return [(" ".join(text), label) for _, label, text in sentences(path, Columns(**named), Report())]


def followed(hint: str | None) -> dict[str, str]:
    """The options that a hint names."""
    pairs = re.findall(r"-s data\.(\w+)=(?:'([^']*)'|(\S+))", hint or "")
    return {name: quoted or plain for name, quoted, plain in pairs}


@pytest.mark.parametrize(
    ("delimiter", "name"), [(",", "a.csv"), (";", "a.csv"), ("|", "a.csv"), ("\t", "a.tsv"), ("\t", "a.csv")]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le"])
def test_one_table_whatever_its_marks_and_encoding(tmp_path: Path, delimiter: str, name: str, encoding: str) -> None:
    path = table(tmp_path / name, [("review", "sentiment"), *ROWS], delimiter=delimiter, encoding=encoding)
    data = LabelledSentences(path=path, length=16)
    assert words(path) == ROWS
    assert data.splits == ("train", "valid", "test")
    assert [len(data.rows(split)) for split in data.splits] == [29, 3, 8]
    assert "the text is the column `review`, the label `sentiment`" in data.notes
    assert "there is no test part: 8 of 40 sentences, a fifth of each class, are held out as `test`" in data.notes
    assert len(data.notes) == 2 + (encoding in ("cp1252", "utf-16", "utf-16-le"))
    assert data.rows("train").__getitems__(list(range(29)))["x"][:, 0, 1].unique().tolist() == hashed(["schöner"], 1)
    assert data.rows("test").__getitems__(list(range(8)))["label"].bincount().tolist() == [4, 4]


@pytest.mark.parametrize("kind", ["a.jsonl", "a.json", "a.csv"])
def test_a_column_says_which_part_a_row_is_of(tmp_path: Path, kind: str) -> None:
    """In JSON lines, a list of objects, or a table; without such a column a fifth is held out."""
    parts = ["train"] * 28 + ["valid"] * 4 + ["test"] * 8
    records = [{"text": text, "label": label, "split": part} for (text, label), part in zip(ROWS, parts, strict=True)]
    path = tmp_path / kind

    def save(records: list[dict[str, str]]) -> None:
        lines = "\n".join(json.dumps(record) for record in records)
        whole = json.dumps(records) if kind == "a.json" else lines
        path.write_text(whole)
        if kind == "a.csv":
            table(path, [list(records[0]), *(record.values() for record in records)])

    save(records)
    data = LabelledSentences(path=path, length=16)
    assert data.splits == ("train", "valid", "dev", "test")
    assert [len(data.rows(split)) for split in data.splits] == [25, 3, 4, 8]
    assert "the table says which part a row is of: 28 `train`, 4 `dev`, 8 `test`" in data.notes
    save([record | {"split": "other" if i == 5 else record["split"]} for i, record in enumerate(records)])
    with pytest.raises(VqtoolError, match=r"1 rows of `a\.\w+` name none of the parts") as caught:
        LabelledSentences(path=path)
    assert "the column `split`" in str(caught.value.hint)
    save([{"text": text, "label": label} for text, label in ROWS])
    assert LabelledSentences(path=path).splits == ("train", "valid", "test")
    assert words(path) == ROWS


@pytest.mark.parametrize("content", ["not json", "[1, 2]", "", '{"text": "a"'])
def test_json_that_holds_no_sentences_is_one_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(VqtoolError, match=r"is not JSON|holds no objects"):
        LabelledSentences(path=tmp_path / "a.jsonl")


def test_another_encoding_can_be_named(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", [("text", "label"), ("хороший фильм", "1"), ("плохой", "0")], encoding="cp1251")
    report = Report()
    decoded(path, "", report)
    assert "is not UTF-8, and is read as Windows-1252 (-s data.encoding=NAME" in report.notes[0]
    assert words(path, encoding="cp1251") == [("хороший фильм", "1"), ("плохой", "0")]
    for name in ("no-such", "utf-16"):
        with pytest.raises(VqtoolError, match="cannot be read as") as caught:
            words(path, encoding=name)
        assert "-s data.encoding=NAME" in (caught.value.hint or "")
    path.write_bytes("text,label\nschöne Größe überall,1\n".encode() + b"b\xff,0\n")
    report = Report()
    assert "schöne Größe" in decoded(path, "", report)
    assert report.notes == ["`a.csv` has 1 characters that are not UTF-8; they are replaced"]


def test_quotes_hold_commas_and_lines(tmp_path: Path) -> None:
    rows = [('two\nlines, a "quote" and\r\na comma', "1"), ("one", "0")]
    assert words(table(tmp_path / "a.csv", [("text", "label"), *rows])) == [
        ('two lines, a "quote" and a comma', "1"), ("one", "0"),
    ]  # fmt: skip
    path = table(tmp_path / "b.tsv", [("text", "label"), *rows], delimiter="\t")
    assert words(path)[0][0].startswith('two lines, a "quote"')
    (tmp_path / "c.tsv").write_text('sentence\tlabel\n"an open quote\t1\nand more"\t0\n"whole ""one"""\t1\n')
    assert words(tmp_path / "c.tsv") == [('"an open quote', "1"), ('and more"', "0"), ('whole "one"', "1")]
    (tmp_path / "d.csv").write_text("sep=;\ntext;label\na, b;1\nc;0\n")
    assert words(tmp_path / "d.csv") == [("a, b", "1"), ("c", "0")]


@pytest.mark.parametrize(
    "rows",
    [
        [("id", "phrase", "mood"), *((str(i), *row) for i, row in enumerate(ROWS))],  # names that nobody knows
        ROWS,  # no names, the text first
        [(label, text) for text, label in ROWS],  # and last
        [(str(i), label, text) for i, (text, label) in enumerate(ROWS)],
    ],
)
def test_the_hint_reads_the_table(tmp_path: Path, rows: list) -> None:
    path = table(tmp_path / "a.csv", rows)
    with pytest.raises(VqtoolError, match="which columns") as caught:
        LabelledSentences(path=path)
    options = followed(caught.value.hint)
    assert words(path, **options) == ROWS
    assert len(LabelledSentences(path=path, **options).rows("test")) == 8


def test_a_column_that_is_not_there_and_one_that_is_no_label(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", [("id", "text", "label"), *((f"u{i}", *row) for i, row in enumerate(ROWS))])
    with pytest.raises(VqtoolError, match="has no column `titel`") as caught:
        words(path, text="titel")
    assert words(path, **followed(caught.value.hint)) == ROWS
    with pytest.raises(VqtoolError, match=r"the column `id` of `a\.csv` has 40 different values") as caught:
        words(path, label="id")
    assert "`label`" in (caught.value.hint or "")
    with pytest.raises(VqtoolError, match="3 columns"):
        words(path, text="7", label="1")
    table(path, [("text", "text", "label"), *((*row, "x") for row in ROWS)])
    with pytest.raises(VqtoolError, match="two columns"):
        words(path)


def test_rows_that_are_left_out_are_counted(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", [("text", "label"), *ROWS, ("a",), ("", "gut"), ("b", " "), ("c", "d", "e"), ()])
    report = Report()
    assert len(sentences(path, Columns(), report)) == 40
    assert report.notes[1:] == [
        "2 of 44 rows of `a.csv` are skipped: they have not 2 cells",
        "2 of 44 rows of `a.csv` are skipped: no text, or no label",
    ]


def test_a_folder_of_tables(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", [("text", "label"), *ROWS])
    table(tmp_path / "validation.csv", [("text", "label"), *ROWS[:4]])
    table(tmp_path / "test.csv", [("text", "label"), *ROWS[:5], ("neu", "neutral")])
    data = LabelledSentences(path=tmp_path, length=16)
    assert [len(data.rows(split)) for split in data.splits] == [36, 4, 4, 6]
    assert data.splits == ("train", "valid", "dev", "test")
    assert data.notes[-1] == "1 class is in `test` but not in `train`, so no model knows them: `neutral`"
    table(tmp_path / "train.tsv", ROWS)
    with pytest.raises(VqtoolError, match="would both be `train`"):
        LabelledSentences(path=tmp_path)


def test_a_folder_with_other_names_points_to_the_table(tmp_path: Path) -> None:
    path = table(tmp_path / "reviews.csv", [("text", "label"), *ROWS])
    with pytest.raises(VqtoolError, match="cannot read") as caught:
        LabelledSentences(path=tmp_path)
    assert followed(caught.value.hint) == {"path": str(path)}
    assert len(LabelledSentences(path=path).rows("test")) == 8


def test_a_table_trains(tmp_path: Path) -> None:
    data, parts = MODELS["sentences"]
    path = table(tmp_path / "a.csv", [("text", "label"), *ROWS])
    (tmp_path / "r.toml").write_text(f"[data]\n{data}\n{parts}")
    done = within("train", tmp_path / "r.toml", "-o", tmp_path / "run", "-q", "-s", f"data.path={path}")
    assert done.returncode == 0, done.stderr
