"""A user's own sentences for `vqtool transmit`, `classify` and `encode`: a line each, or a column of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from vqtool.api import DataSpec, Files, Piece
from vqtool.errors import VqtoolError
from vqtool.untrusted import is_pickle, pickled
from vqtool_images.splits import Report
from vqtool_semcom.sentence_files import TABLES, Columns, decoded, text_column
from vqtool_semcom.words import hashed

AT_A_TIME = 256  # sentences of a piece


class SentenceFiles(Files):
    """Reads .txt, a sentence a line, and .csv, .tsv or .jsonl with a column of texts; labels need not be there.

    Where every line of a .txt begins with a label that the model knows, as the lines it was trained on do, that label
    is no part of the sentence. Sentences are named by their own text.
    """

    def __init__(
        self, spec: DataSpec, options: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(spec)
        own, asked = dict(options or {}), dict(asked or {})
        self.columns = Columns(asked.get("text", ""), "", asked.get("encoding", ""))
        self.usual = own.get("text", "")  # of the training data: taken where the file has it
        self.piece = int({**own, **asked}.get("piece", 0))

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """The sentences, some at a time."""
        if condition:
            yield from super().open(path, condition=True)
        if path.is_dir():
            raise VqtoolError(f"`{path}` is a folder", hint="give a file: .txt with a sentence a line, .csv or .tsv")
        if is_pickle(path):
            raise pickled(path)
        report = Report()
        content = decoded(path, self.columns.encoding, report)
        if "\0" in content:
            raise VqtoolError(f"`{path}` is not a text file", hint=".txt with a sentence a line, .csv or .tsv")
        if path.suffix.lower() in TABLES or self.columns.text:
            texts = text_column(path, content, self.columns.text, self.usual, report)
        else:
            texts = self._lines(path, content, report)
        if not texts:
            raise VqtoolError(f"`{path}` has no sentences", hint="a sentence a line")
        total = -(-len(texts) // AT_A_TIME)
        for begin in range(0, len(texts), AT_A_TIME):
            some = texts[begin : begin + AT_A_TIME]
            ids = [hashed(text.split(), self.spec.length, self.piece) for text in some]
            yield Piece({"x": torch.tensor(ids)[:, None]}, {"names": some}, tuple(report.notes), total)

    def _lines(self, path: Path, content: str, report: Report) -> list[str]:
        """The lines that hold anything, without labels."""
        lines = [line.strip() for line in content.split("\n") if line.strip()]
        known = {name for field in self.spec.named("label").values() for name in field.names}
        parts = [line.split(None, 1) for line in lines]
        if lines and all(len(part) == 2 and part[0] in known for part in parts):
            report.add(f"each line of `{path.name}` begins with a label of the model, which is left out")
            return [part[1] for part in parts]
        return lines
