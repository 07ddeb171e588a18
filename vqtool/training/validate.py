"""What a stage is worth on the validation rows: its losses, its code usage, and a metric where `best` names one."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api.data import Data
from vqtool.api.quantizer import Quantized
from vqtool.recipe import StageSpec
from vqtool.training.batches import in_order
from vqtool.training.build import Model, quantizer_of
from vqtool.training.evaluate import evaluate_rows
from vqtool.training.runtime import Runtime, seed_of
from vqtool.training.stage import StageModule
from vqtool.training.usage import Usage


@torch.no_grad()
def validate(
    module: StageModule, model: Model, stage: StageSpec, data: Data, runtime: Runtime, *, seed: int
) -> dict[str, float]:
    """Mean losses over the validation rows; the random numbers are the same at every call."""
    rows = data.rows("valid")
    was_training = {m: m.training for m in module.modules()}
    module.eval()
    sums: dict[str, Tensor] = {}
    usage = Usage()
    torch.manual_seed(seed_of(seed, "validation"))
    try:
        for batch in in_order(rows, stage.train.batch, runtime):
            size = len(next(iter(batch.values())))
            with runtime.autocast(stage.train.precision):
                total, terms, outputs = module(batch)
            for name, value in {"loss": total, **terms}.items():
                sums[name] = sums.get(name, 0) + value.double() * (size / len(rows))
            if isinstance(outputs.get("quantized"), Quantized):
                usage.add(outputs["quantized"].codes)
        row = {name: float(value) for name, value in sums.items()} | usage.take(quantizer_of(model))
        if stage.train.best not in row:
            row |= evaluate_rows(model, stage.name, rows, runtime)
        return row
    finally:
        for each, training in was_training.items():
            each.training = training
