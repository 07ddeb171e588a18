"""Sentences with labels, one `label words ...` a line, as hashes of their words."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval

from vqtool.api import Data, DataSpec, Field, Rows, TensorRows
from vqtool.errors import VqtoolError

HASHES = 2**31 - 1
MANY, RARE = 100, 2  # of so many lines, a label on no more than two may be a slip
Line = tuple[int, str, list[str]]  # its number, the label, the words
FORM = "each line is `label word word ...`: the label first, then blanks and the words"


class LabelledSentences(Data):
    """`x` [1, L] long: a hash in [1, 2^31) for each word, then for pieces of the longer ones, then 0; `label`.

    `path` is a folder with train.txt, dev.txt and test.txt (UTF-8; what is not is replaced), `label word word ...` a
    line. Hashes need no vocabulary: a checkpoint reads words it has never seen, by their pieces. What is beyond the
    L-th is left out. One label alone is an error, since the lines are of another form; one that training hardly has
    gets a note.
    """

    splits = ("train", "valid", "dev", "test")

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("a folder with train.txt, dev.txt and test.txt")],
        length: Annotated[int, Gt(0), Doc("words and pieces of a sentence that are read, L")] = 224,
        piece: Annotated[int, Ge(0), Doc("letters of a piece, of the words that have as many; 0: none")] = 4,
        valid_share: Annotated[float, Interval(gt=0, lt=1), Doc("share of train.txt kept for validation")] = 0.1,
        valid_seed: Annotated[int, Doc("of the choice of the validation sentences")] = 0,
    ) -> None:
        read = {name: sentences(path / f"{name}.txt") for name in ("train", "dev", "test")}
        self.notes = _odd_labels(path, read)
        classes = sorted({label for rows in read.values() for _, label, _ in rows})
        train = read.pop("train")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(valid_seed)).tolist()
        held = max(1, round(valid_share * len(train)))
        if held >= len(train):
            raise VqtoolError(f"`{path}/train.txt` has {len(train)} sentences: too few to keep some for validation")
        cut = {"train": [train[i] for i in order[held:]], "valid": [train[i] for i in order[:held]]} | read
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


def sentences(path: Path) -> list[Line]:
    """(number, label, words) of every line; a line ends with a line feed, and with no other sign that Unicode has."""
    try:
        lines = path.read_bytes().decode("utf-8-sig", errors="replace").split("\n")
    except OSError as error:
        raise VqtoolError(
            f"cannot read `{path}`: {error.strerror or error}",
            hint="-s data.path=FOLDER with train.txt, dev.txt and test.txt, a label and a sentence in each line",
        ) from error
    rows = []
    for number, line in enumerate(lines, 1):
        label, *words = line.split() or [""]
        if label and not words:
            raise VqtoolError(f"line {number} of `{path}` has no words after its label", hint=FORM)
        if label:
            rows.append((number, label, words))
    if not rows:
        raise VqtoolError(f"`{path}` has no sentences", hint=FORM)
    return rows


def _odd_labels(path: Path, read: dict[str, list[Line]]) -> tuple[str, ...]:
    """A note on the first label that training hardly has.

    Raises:
        VqtoolError: all lines have the same label, so it is none.
    """
    train = Counter(label for _, label, _ in read["train"])
    if len({label for rows in read.values() for _, label, _ in rows}) == 1:
        raise VqtoolError(f"all lines in `{path}` have the one label `{next(iter(train))}`", hint=FORM)
    if len(read["train"]) >= MANY:
        for name, rows in read.items():
            for number, label, _ in rows:
                if train[label] <= RARE:
                    return (
                        f"line {number} of `{path / name}.txt` has the label `{label}`, which {train[label]} of the "
                        f"{len(read['train'])} lines of train.txt have: is it one? ({FORM})",
                    )
    return ()


def hashed(words: Sequence[str], length: int, piece: int = 0) -> list[int]:
    """A stable hash of each word, of each run of `piece` characters in <word>, then zeros."""
    pieces = [
        f"<{word}>"[i : i + piece] for word in words if 0 < piece <= len(word) for i in range(len(word) + 3 - piece)
    ]
    known = [zlib.crc32(part.encode()) % (HASHES - 1) + 1 for part in [*words, *pieces][:length]]
    return known + [0] * (length - len(known))
