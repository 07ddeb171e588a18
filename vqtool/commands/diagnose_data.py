"""The part of `vqtool diagnose` that encodes data: counts over a whole split, and pieces of signals for the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vqtool.api import Decodes, Encodes, Rows
from vqtool.diagnosis.reading import recounted
from vqtool.diagnosis.report import Report
from vqtool.diagnosis.samples import Picker, Samples
from vqtool.files import as_given
from vqtool.model.build import stage_named
from vqtool.model.data import open_data
from vqtool.model.format import USAGE
from vqtool.model.load import from_checkpoint
from vqtool.model.model import Model
from vqtool.training.batches import in_order
from vqtool.training.evaluate import evaluate_rows, held_out
from vqtool.training.runtime import Runtime, runtime
from vqtool.training.stage import StageModule
from vqtool.training.validate import measure

SHOWN = 6  # windows whose reconstruction the page shows


def encoded(
    report: Report, data: Path | None, split: str, device: str, *, count: bool, pictures: bool
) -> tuple[Report, Samples | None]:
    """The report counted over the split, with `count`, and samples for the page, with `pictures`.

    The split is one of the recipe's data, or of those at the path `data`.
    """
    with runtime(device) as here:
        model, read = from_checkpoint(report.source, finite=False)
        model.parts.to(here.device).eval()
        rows = held_out(open_data(model.recipe, path=data), split, None)[split]
        stage = training_stage(model, read.metadata["stage"])
        if count:
            where = f"split {split}" + (f" of {as_given(data)}" if data is not None else "")
            report = counted(report, model, stage, rows, here, where)
        return report, samples(model, rows, split, here) if pictures else None


def training_stage(model: Model, last: str) -> str:
    """The stage whose task trains the quantizer: it passes every row through it; else the `last`."""
    return next((name for name, task in model.tasks.items() if "quantizer" in task.trains), last)


def counted(report: Report, model: Model, stage: str, rows: Rows, here: Runtime, where: str) -> Report:
    """Use, errors, both paths, the output's range, and the recipe's metrics, over all rows."""
    quantizer = model.quantizer
    assert quantizer is not None  # `report_of` has refused what has none
    spec = stage_named(model.recipe, stage)
    module = StageModule(model, spec).to(here.device)
    seen = measure(module, model, spec, rows, here, seed=model.recipe.seed)
    numbers = range(len(quantizer.codebook_sizes))
    part = {name: tensor.numpy() for name, tensor in seen.tensors.items()}
    counts = [part.get(f"{USAGE}{q}.counts", np.zeros(quantizer.codebook_sizes[q], np.int64)) for q in numbers]
    errors = {q: (part[f"{USAGE}{q}.errors"], part[f"{USAGE}{q}.offsets"]) for q in numbers
              if f"{USAGE}{q}.errors" in part}  # fmt: skip
    metrics = {name: value for name, value in evaluate_rows(model, stage, rows, here).items()
               if not name.startswith("codes.")}  # fmt: skip
    return recounted(report, where, counts, errors, seen.row | metrics)


@torch.no_grad()
def samples(model: Model, rows: Rows, split: str, here: Runtime) -> Samples | None:
    """Pieces of windows for every code, and a few reconstructions; None where no task encodes."""
    coder, quantizer = model.task(Encodes), model.quantizer
    if coder is None or quantizer is None or "x" not in model.spec.fields:
        return None
    task, picker = coder[1], Picker(quantizer.codebook_sizes)
    originals = reconstructions = codes = None
    for batch in in_order(rows, model.recipe.evaluate.batch, here, model.spec):
        coded = task.encode(model.parts, batch)  # type: ignore[attr-defined]  # of the protocol
        if originals is None:
            originals, codes = batch["x"][:SHOWN].cpu().numpy(), coded["codes"][:SHOWN].cpu().numpy()
            if isinstance(task, Decodes):
                reconstructions = task.decode(model.parts, coded, batch)[:SHOWN].cpu().numpy()
        picker.add(batch["x"].cpu().numpy(), coded["codes"].cpu().numpy())
        if picker.full:
            break
    if originals is None:
        return None
    return picker.samples(split, originals, reconstructions=reconstructions, unit=model.spec.signal.unit, codes=codes,
                          rate=float(model.spec.sample_rate or 0))  # fmt: skip
