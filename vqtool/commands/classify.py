"""`vqtool classify`: the likeliest class of each of a user's own inputs, and its probability, as a table."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtool.api import Batch, Classifies
from vqtool.commands import outputs
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.files import require_parent_dir, text_cell, write_atomic
from vqtool.model.data import options_asked, report_notes, report_skipped
from vqtool.model.load import from_checkpoint, with_overrides
from vqtool.model.model import Model
from vqtool.model.runs import checkpoint_path
from vqtool.recipe.spec import paths_in
from vqtool.training.runtime import runtime

SHOWN = 10  # rows of the table for people
Columns = Mapping[str, Sequence[object]]  # a value for each input, by the column's name
Answer = Callable[[Model, Batch], tuple[Tensor, Columns]]  # logits [B, classes], and more columns


@dataclass(frozen=True, slots=True)
class InputOptions:
    """The options of a command that writes a row for each input: see `vqtool classify --help`."""

    checkpoint: Path
    input_file: Path
    out_file: Path | None
    overrides: Sequence[str]
    seed: int
    device: str
    precision: str
    force: bool


def run(**given: Any) -> int:
    """Classify each input."""

    def answer(model: Model, batch: Batch) -> tuple[Tensor, Columns]:
        return model.classify(batch), {}

    return write_table(InputOptions(**given), answer, Classifies, "classify")


def write_table(
    asked: InputOptions, answer: Answer, protocol: type, verb: str, *, others: Sequence[Path | None] = (),
    check: Callable[[Model], None] = lambda model: None,
) -> int:  # fmt: skip
    """Write a row for each input, with what `answer` says about it; returns the exit code.

    Args:
        asked: the options that `vqtool classify` has.
        answer: of the model and a batch of inputs.
        protocol: what the model's task must do, and `verb`, what that is called.
        others: files that the caller writes once this is done.
        check: called with the model before any work, once the outputs are found to be none of the inputs.
    """
    require_parent_dir(asked.out_file)
    if asked.out_file is not None and asked.out_file.suffix.lower() != ".csv":
        raise VqtoolError(f"the table is a .csv file, not `{asked.out_file}`", hint="--out FILE.csv")
    if not asked.input_file.exists():
        raise VqtoolError(f"there is no file or folder `{asked.input_file}`")
    with runtime(asked.device, asked.precision) as here, torch.no_grad():
        of_data = [text for text in asked.overrides if text.startswith("data.")]
        model, read = from_checkpoint(checkpoint_path(asked.checkpoint), able=(protocol, verb))
        options = options_asked(model.recipe, of_data)
        model = with_overrides(model, read, [text for text in asked.overrides if text not in of_data])
        files = model.files(options)
        inputs = [*files.inputs(asked.input_file), model.path, *paths_in(options)]
        outputs.check(asked.out_file, *others, inputs=inputs, force=asked.force, recipe=model.recipe)
        check(model)
        here.place(model)
        torch.manual_seed(asked.seed)
        table = Table(next(iter(model.spec.named("label").values())).names)
        with out.progress(None, verb) as bar:
            for piece in files.open(asked.input_file):
                report_notes(piece.notes)
                bar.expect(piece.total)
                table.add(piece.metadata.get("names"), *answer(model, here.to_device(piece.batch)))
                bar.advance()
    report_notes(files.remarks())
    left_out = list(files.skipped())
    written = [path for path in (asked.out_file, *others) if path is not None]
    table.show(asked.out_file, written, left_out)
    return report_skipped(left_out)


class Table:
    """A row for each input: its name, the likeliest class, the probability of it, and what else is known."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.columns = ["input", "label", "probability"]
        self.rows: list[list[object]] = []

    def add(self, names: Sequence[str] | None, logits: Tensor, more: Columns) -> None:
        """Rows of logits [B, classes]; inputs without names are counted."""
        self.columns = ["input", "label", "probability", *more]
        best, chosen = logits.float().softmax(-1).max(-1)
        for row, (share, index) in enumerate(zip(best.tolist(), chosen.tolist(), strict=True)):
            name = str(len(self.rows)) if names is None else names[row]
            self.rows.append([name, self.classes[index], round(share, 6), *(values[row] for values in more.values())])

    def text(self) -> str:
        """As CSV; what a spreadsheet would take for a formula is marked as text."""
        content = io.StringIO()
        writer = csv.writer(content, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([text_cell(str(name)), text_cell(str(label)), *rest] for name, label, *rest in self.rows)
        return content.getvalue()

    def dictionaries(self) -> Iterator[dict[str, object]]:
        """The rows by column."""
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)

    def show(self, path: Path | None, written: Sequence[Path], left_out: Sequence[str]) -> None:
        """Write to `path`, or show all on stdout; and say which labels there are how often."""
        labels = dict(Counter(str(row[1]) for row in self.rows).most_common())
        document = {"inputs": len(self.rows), "labels": labels, "files": list(written), "skipped": list(left_out)}
        if path is None:
            out.print(self.text().rstrip("\n"))
            out.document({**document, "answers": list(self.dictionaries())})
            return
        write_atomic(path, self.text().encode())
        shown = [[str(value)[:40] for value in row] for row in self.rows[:SHOWN]]
        out.table(f"the first {len(shown)} of {len(self.rows)}" if len(self.rows) > SHOWN else "", self.columns, shown)
        out.say(f"wrote {len(self.rows)} rows to {path}")
        out.print("\n".join(map(str, written)))
        out.document(document)
