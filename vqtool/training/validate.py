"""What a stage is worth on the validation rows: its losses, its code usage, and a metric where `best` names one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.api.data import Batch, Data, DataSpec, Rows
from vqtool.api.quantizer import Quantized, Quantizer
from vqtool.api.task import Decodes, Encodes
from vqtool.diagnosis.measures import decibels
from vqtool.model.model import Model, eval_mode
from vqtool.model.seeds import seed_of
from vqtool.model.seen import Seen
from vqtool.recipe import StageSpec
from vqtool.training.batches import in_order
from vqtool.training.evaluate import evaluate_rows
from vqtool.training.runtime import Runtime
from vqtool.training.stage import StageModule
from vqtool.training.usage import Tally


@dataclass(frozen=True, slots=True)
class Validation:
    """What plugins may show of a validation beside its row of figures."""

    stage: str
    step: int
    counts: Mapping[str, Tensor]  # [K], how often each code was used, by codebook
    spec: DataSpec
    pairs: Callable[[int], tuple[Tensor, Tensor] | None]  # see `reconstructed`


@torch.no_grad()
def reconstructed(model: Model, stage: str, rows: Rows, runtime: Runtime, most: int) -> tuple[Tensor, Tensor] | None:
    """The first rows and what the stage's codes give back, [N, C, ...] each; None of a task that gives no signals."""
    task = model.tasks[stage]
    if not isinstance(task, Encodes) or not isinstance(task, Decodes):
        return None
    batch = runtime.to_device(rows.__getitems__(list(range(min(most, len(rows))))))
    with eval_mode(model.parts):
        return batch["x"].cpu(), task.decode(model.parts, task.encode(model.parts, batch), batch).float().cpu()


@torch.no_grad()
def validate(module: StageModule, model: Model, stage: StageSpec, data: Data, runtime: Runtime, *, seed: int) -> Seen:
    """What `measure` finds on the validation rows, and the metrics where the stage names one of them."""
    rows = data.rows("valid")
    seen = measure(module, model, stage, rows, runtime, seed=seed)
    named = {stage.train.best, *stage.train.stop_when, *stage.train.show}
    coded = model.quantizer is None or not model.quantizer.bypass  # else metrics have no codes to measure
    if coded and not named <= seen.row.keys():
        seen.row |= evaluate_rows(model, stage.name, rows, runtime)
    return seen


@torch.no_grad()
def measure(module: StageModule, model: Model, stage: StageSpec, rows: Rows, runtime: Runtime, *, seed: int) -> Seen:
    """Mean losses over all `rows`, and how they use the codes; the random numbers are the same at every call.

    Of a quantizer with a soft path, `soft.loss` and `hard.loss` are what the task's own losses come to over either
    path, under the same random numbers, and `soft_hard.gap` is hard / soft - 1.
    """
    quantizer = model.quantizer
    tally = Tally(quantizer) if quantizer is not None else None
    output = Output()
    with eval_mode(module):
        with tally or contextlib.nullcontext():
            means = _means(module, stage, rows, runtime, seed, output)
        seen = tally.seen() if tally is not None else Seen()
        if tally is not None and tally.mixed and quantizer is not None:
            with soft_path(quantizer):
                soft = _means(module, stage, rows, runtime, seed, None)
            seen.row |= gap(_task_loss(module, means), _task_loss(module, soft))
    seen.row = means | seen.row | output.figures()
    return seen


def _means(
    module: StageModule, stage: StageSpec, rows: Rows, runtime: Runtime, seed: int, output: Output | None
) -> dict[str, float]:
    """The mean of every loss over all rows."""
    sums: dict[str, Tensor] = {}
    torch.manual_seed(seed_of(seed, "validation"))
    for batch in in_order(rows, stage.train.batch, runtime):
        size = len(next(iter(batch.values())))
        with runtime.autocast(stage.train.precision):
            _, terms, outputs = module(batch)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.double() * (size / len(rows))
        if output is not None:
            output.add(outputs, batch)
    return {name: float(value) for name, value in sums.items()}


@contextlib.contextmanager
def soft_path(quantizer: Quantizer) -> Iterator[None]:
    """Inside, the soft mixture flows on in place of the codes."""

    def swap(_: nn.Module, __: tuple[Any, ...], given: Quantized) -> Quantized:
        return given if given.soft is None else replace(given, z=given.soft)

    hook = quantizer.register_forward_hook(swap)
    try:
        yield
    finally:
        hook.remove()


def _task_loss(module: StageModule, means: dict[str, float]) -> float:
    """The weighted sum of the losses that are not terms of the quantizer: these are the same over both paths."""
    return sum(weight * means[name] for name, weight in module.weights.items()
               if name in module.losses and name not in module.opposed)  # fmt: skip


def gap(hard: float, soft: float) -> dict[str, float]:
    """The figures of both paths."""
    figures = {"hard.loss": hard, "soft.loss": soft}
    return figures | ({"soft_hard.gap": hard / soft - 1} if soft > 0 and math.isfinite(hard / soft) else {})


class Output:
    """How a task's `x_hat` lies to its `target`, over a whole split; nothing where a task gives no such pair.

    `range_ratio` is the spread of the output over the target's, `rescale` the factor that would fit it best (1 for the
    best estimate of something uncertain, however small its range), `dc` the mean error over the target's spread.
    `output.si_sdr_db` is `output.snr_db` at the gain that fits best, about the means (Le Roux et al. 2019, arXiv
    1811.02508).
    """

    def __init__(self) -> None:
        self.n = 0
        self.sums = torch.zeros(5, dtype=torch.float64)  # of x, y, x^2, y^2, x y

    def add(self, outputs: dict[str, Any], batch: Batch) -> None:
        """Take a batch."""
        y, x = outputs.get("x_hat"), outputs.get("target")
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)) or x.shape != y.shape or not x.is_floating_point():
            return
        x, y = x.double().flatten(), y.double().flatten()
        self.n += x.numel()
        self.sums += torch.stack([x.sum(), y.sum(), x @ x, y @ y, x @ y]).cpu()

    def figures(self) -> dict[str, float]:
        """The figures named above, and `output.snr_db`."""
        if not self.n:
            return {}
        mean_x, mean_y, xx, yy, xy = (self.sums / self.n).tolist()
        var_x, var_y, both = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
        if not var_x > 0:
            return {}
        error = xx - 2 * xy + yy
        row = {"range_ratio": math.sqrt(max(var_y, 0.0) / var_x), "dc": (mean_y - mean_x) / math.sqrt(var_x),
               "output.snr_db": decibels(var_x, error),
               "output.si_sdr_db": decibels(both**2, var_x * var_y - both**2)}  # fmt: skip
        return row | ({"rescale": both / var_y} if var_y > 1e-12 * var_x else {})
