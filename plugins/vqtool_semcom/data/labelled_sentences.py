"""Sentences with labels, of tables or of lines with the label first, as hashes of their words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval

from vqtool.api import Data, DataSpec, Field, Rows, TensorRows
from vqtool.errors import VqtoolError
from vqtool_images.splits import Report, made_split
from vqtool_semcom.sentence_files import FORM, Columns, Line, by_part
from vqtool_semcom.user_sentences import SentenceFiles
from vqtool_semcom.words import hashed

MANY, RARE = 100, 2  # of so many lines, a label on no more than two may be a slip


class LabelledSentences(Data):
    """`x` [1, L] long: a hash in [1, 2^31) for each word, then for pieces of the longer ones, then 0; `label`.

    `path` is a table (CSV, TSV or JSON lines) with a column of texts, one of labels and perhaps one called `split`
    (train, dev or valid, test); or a folder with files called train, dev and test: tables, or text with
    `label word word ...` a line. Of one file without such a column a fifth of each class is held out as the
    test. Hashes need no vocabulary: a checkpoint reads words it has never seen, by their pieces. What is beyond the
    L-th is left out. One label alone is an error, since the lines are of another form; one that training hardly has
    gets a note.
    """

    files = SentenceFiles
    splits: tuple[str, ...] = ("train", "valid", "dev", "test")

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("a .csv, .tsv or .jsonl, or a folder with train, dev and test as .txt or tables")],
        text: Annotated[
            str, Doc("the column of texts, by name or number; else by usual names: text, sentence, ...")
        ] = "",
        label: Annotated[
            str, Doc("the column of labels, by name or number; else by usual names: label, class, ...")
        ] = "",
        encoding: Annotated[str, Doc("of the files; else UTF-8, UTF-16 or Windows-1252 by their bytes")] = "",
        length: Annotated[int, Gt(0), Doc("words and pieces of a sentence that are read, L")] = 224,
        piece: Annotated[int, Ge(0), Doc("letters of a piece, of the words that have as many; 0: none")] = 4,
        valid_share: Annotated[float, Interval(gt=0, lt=1), Doc("share of train.txt kept for validation")] = 0.1,
        valid_seed: Annotated[int, Doc("of the choice of the validation sentences")] = 0,
    ) -> None:
        report = Report()
        files, read = by_part(path, Columns(text, label, encoding), report)
        odd = _odd_labels(files, read)
        classes = sorted({label for rows in read.values() for _, label, _ in rows})
        train = read.pop("train")
        if "test" not in read:
            keep, away = made_split([label for _, label, _ in train], report, "sentences")
            train, read["test"] = [train[k] for k in keep], [train[k] for k in away]
        if not odd:  # else it is said already
            seen = {"train": train, **read}
            report.unseen_classes({name: sorted({label for _, label, _ in rows}) for name, rows in seen.items()})
        self.notes = (*report.notes, *odd)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(valid_seed)).tolist()
        held = max(1, round(valid_share * len(train)))
        if held >= len(train):
            raise VqtoolError(f"`{path}` has {len(train)} sentences to train on: too few to keep some for validation")
        cut = {"train": [train[i] for i in order[held:]], "valid": [train[i] for i in order[:held]]} | read
        self.splits = tuple(name for name in type(self).splits if name in cut)
        self._rows = {
            name: TensorRows(
                {
                    "x": torch.tensor([hashed(words, length, piece) for _, _, words in rows])[:, None],
                    "label": torch.tensor([classes.index(label) for _, label, _ in rows]),
                }
            )
            for name, rows in cut.items()
        }
        self.spec = DataSpec(
            {"x": Field((1, length), "signal", "hash"), "label": Field((), "label", names=tuple(classes))}
        )

    def rows(self, split: str) -> Rows:
        """The rows of a split."""
        return self._rows[split]


def _odd_labels(files: dict[str, Path], read: dict[str, list[Line]]) -> tuple[str, ...]:
    """A note on the first label that training hardly has.

    Raises:
        VqtoolError: all lines have the same label, so it is none.
    """
    train = Counter(label for _, label, _ in read["train"])
    if len({label for rows in read.values() for _, label, _ in rows}) == 1:
        raise VqtoolError(f"all lines of `{files['train']}` have the one label `{next(iter(train))}`", hint=FORM)
    if len(read["train"]) >= MANY:
        for name, rows in read.items():
            for number, label, _ in rows:
                if train[label] <= RARE:
                    return (
                        f"line {number} of `{files[name]}` has the label `{label}`, which {train[label]} of the "
                        f"{len(read['train'])} lines of {files['train'].name} have: is it one? ({FORM})",
                    )
    return ()
