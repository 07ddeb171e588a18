"""`vqtool classify`, and what a table with a row for each of a user's own inputs needs."""

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

from vqtool.api import Batch, Classifies, Piece
from vqtool.commands import outputs
from vqtool.console import out
from vqtool.errors import VqtoolError, counted
from vqtool.files import missing_file, require_parent_dir, text_cell, write_atomic
from vqtool.model.data import options_asked, report_notes, report_skipped
from vqtool.model.load import from_checkpoint, with_overrides
from vqtool.model.model import Model
from vqtool.model.runs import checkpoint_path
from vqtool.recipe.spec import paths_in
from vqtool.training.runtime import runtime

SHOWN = 10  # rows of the table for people
Columns = Mapping[str, Sequence[object]]  # a value for each input, by the column's name
Answer = Callable[[Model, Batch], tuple[Columns, Tensor | None]]  # and signals [B, C, L], where there are any


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

    def answer(model: Model, batch: Batch) -> tuple[Columns, None]:
        return labels(model, model.classify(batch)), None

    return write_table(InputOptions(**given), answer, Classifies, "classify")


def labels(model: Model, logits: Tensor) -> Columns:
    """The likeliest class of each row of logits [B, classes], and its probability."""
    (classes,) = (field.names for field in model.spec.named("label").values())
    best, chosen = logits.float().softmax(-1).max(-1)
    return {"label": [classes[index] for index in chosen.tolist()],
            "probability": [round(share, 6) for share in best.tolist()]}  # fmt: skip


def write_table(
    asked: InputOptions, answer: Answer, protocol: type, verb: str, *, others: Sequence[Path | None] = (),
    check: Callable[[Model], None] = lambda model: None,
) -> int:  # fmt: skip
    """Write a row for each input, with what `answer` says about it; returns the exit code.

    Where the output is no .csv and the model gives signals, these are written there, and the table is shown.

    Args:
        asked: the options that `vqtool classify` has.
        answer: of the model and a batch of inputs.
        protocol: what the model's task must do, and `verb`, what that is called.
        others: files that the caller writes once this is done.
        check: called with the model before any work, once the outputs are found to be none of the inputs.
    """
    require_parent_dir(asked.out_file)
    if not asked.input_file.exists():
        raise missing_file(asked.input_file, what="file or folder")
    with runtime(asked.device, asked.precision) as here, torch.no_grad():
        of_data = [text for text in asked.overrides if text.startswith("data.")]
        model, read = from_checkpoint(checkpoint_path(asked.checkpoint), able=(protocol, verb))
        options = options_asked(model.recipe, of_data)
        model = with_overrides(model, read, [text for text in asked.overrides if text not in of_data])
        files = model.files(options)
        signals = signals_to(asked.out_file, isinstance(model.capable(protocol, verb), Classifies))
        if signals is not None:
            signals = outputs.placed(files, asked.input_file, signals, decode=True)
        targets = [asked.out_file] if signals is None else files.outputs(asked.input_file, signals, decode=True)
        inputs = [*files.inputs(asked.input_file), model.path, *paths_in(options)]
        outputs.check(*targets, *others, inputs=inputs, force=asked.force, recipe=model.recipe,
                      folder=signals if targets != [signals or asked.out_file] else None)  # fmt: skip
        check(model)
        here.place(model)
        torch.manual_seed(asked.seed)
        table = Table()

        def answered() -> Iterator[Piece]:
            for piece in files.open(asked.input_file):
                report_notes(piece.notes)
                bar.expect(piece.total)
                columns, signal = answer(model, here.to_device(piece.batch))
                table.add(piece.metadata.get("names"), columns)
                if signal is not None:
                    metadata = {**piece.metadata, "notes": list(piece.notes)}
                    yield Piece({**piece.batch, "x": signal.float().cpu()}, metadata)
                bar.advance()

        with out.progress(None, verb) as bar:
            pieces = answered()
            saved: Sequence[Path | None] = files.save(signals, pieces) if signals is not None else []
            for _ in pieces:  # those that are written nowhere have a row of the table all the same
                pass
    report_notes(files.remarks())
    left_out = list(files.skipped())
    if saved:
        out.say(f"wrote {counted(len(table.rows), 'signal')} to {saved[0] if len(saved) == 1 else signals}")
    written = [path for path in (*(saved or [asked.out_file]), *others) if path is not None]
    table.show(asked.out_file if signals is None else None, written, left_out)
    return report_skipped(left_out)


def signals_to(path: Path | None, classifies: bool) -> Path | None:
    """Where signals are to be written; None where the table goes there, or nothing is written."""
    if path is None or path.suffix.lower() == ".csv":
        return None
    if classifies:
        raise VqtoolError(f"the table is a .csv file, not `{path}`", hint="--out FILE.csv")
    return path


class Table:
    """A row for each input: its name, and what is known about it by column."""

    def __init__(self) -> None:
        self.columns = ["input"]
        self.rows: list[list[object]] = []

    def add(self, names: Sequence[str] | None, columns: Columns) -> None:
        """Rows by column; inputs without names are counted."""
        self.columns = ["input", *columns]
        for row, values in enumerate(zip(*columns.values(), strict=True)):
            self.rows.append([str(len(self.rows)) if names is None else names[row], *values])

    def text(self) -> str:
        """As CSV; what a spreadsheet would take for a formula is marked as text."""
        content = io.StringIO()
        writer = csv.writer(content, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([text_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in self.rows)
        return content.getvalue()

    def dictionaries(self) -> Iterator[dict[str, object]]:
        """The rows by column."""
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)

    def show(self, path: Path | None, written: Sequence[Path], left_out: Sequence[str]) -> None:
        """Write to `path`, or show all on stdout; and say which labels there are how often."""
        document: dict[str, object] = {"inputs": len(self.rows), "files": list(written), "skipped": list(left_out)}
        if "label" in self.columns:
            at = self.columns.index("label")
            document["labels"] = dict(Counter(str(row[at]) for row in self.rows).most_common())
        if path is None:
            out.print(self.text().rstrip("\n"))
            out.document({**document, "answers": list(self.dictionaries())})
            return
        write_atomic(path, self.text().encode())
        shown = [[str(value)[:40] for value in row] for row in self.rows[:SHOWN]]
        out.table(f"the first {len(shown)} of {len(self.rows)}" if len(self.rows) > SHOWN else "", self.columns, shown)
        out.say(f"wrote {counted(len(self.rows), 'row')} to {path}")
        out.print("\n".join(map(str, written)))
        out.document(document)
