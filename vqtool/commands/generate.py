"""`vqtool generate`: signals from a user's own conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from vqtool.api import Generates, Piece
from vqtool.commands import outputs
from vqtool.console import out
from vqtool.errors import VqtoolError, counted
from vqtool.files import require_parent_dir
from vqtool.model.data import options_asked, report_notes
from vqtool.model.load import capable
from vqtool.model.seeds import seed_of
from vqtool.training.runtime import runtime


def run(
    *,
    checkpoint: Path,
    condition: Path,
    out_file: Path,
    beam: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    samples: int,
    seed: int,
    device: str,
    precision: str = "fp32",
    overrides: Sequence[str] = (),
    force: bool = False,
) -> int:
    """Write a signal per condition (or `samples` of them); greedy unless sampling or a beam is asked for."""
    sampled = temperature is not None or top_k is not None or top_p is not None or samples > 1
    if beam is not None and sampled:
        raise VqtoolError("--beam and sampling exclude each other", hint="--beam N, or --temperature/--top-k/--top-p")
    how: dict[str, Any] = {"beam": beam} if beam is not None else {}
    if sampled:
        how = {"temperature": 1.0 if temperature is None else temperature, "top_k": top_k, "top_p": top_p}
    require_parent_dir(out_file)
    count = 0
    with runtime(device, precision) as here, torch.no_grad():
        model, task = capable(checkpoint, Generates, "generate")
        files = model.files(options_asked(model.recipe, overrides))
        out_file = outputs.placed(files, condition, out_file, decode=True)
        outputs.check(out_file, inputs=[model.path, condition], force=force, recipe=model.recipe)
        here.place(model)

        def generated() -> Iterator[Piece]:
            nonlocal count
            for piece in files.open(condition, condition=True):
                report_notes(piece.notes)
                placed = here.to_device(piece.batch)
                rows = range(count, count + len(next(iter(piece.batch.values()))))
                drawn = []
                for sample in range(samples):
                    seeds = [seed_of(seed, row, sample) for row in rows]
                    drawn.append(task.generate(model.parts, placed, **how, seeds=seeds).cpu())
                signal = drawn[0] if samples == 1 else torch.stack(drawn, dim=1)
                count += len(rows)
                yield Piece({"x": signal, **piece.batch}, piece.metadata)

        files.save(out_file, generated())
    each = f", {samples} samples each" if samples > 1 else ""
    out.say(f"wrote {counted(count, 'signal')}{each} to {out_file}")
    out.print(str(out_file))
    out.document({"out": str(out_file), "signals": count, "samples": samples})
    return 0
