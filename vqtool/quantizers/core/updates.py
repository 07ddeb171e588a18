"""Updates: the statistics of all ranks together, and `attach`, which moves codebooks after an optimizer's steps."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from vqtool.api import CodebookStats, Quantized, Quantizer
from vqtool.api.quantizer import SAMPLES, sample
from vqtool.errors import VqtoolError

PATIENCE = 20  # optimizer steps of a model that trains without an update, before a warning
_steps = 0  # of all optimizers, once somebody waits for them
_counting = False


class Attached:
    """What `attach` returns: collects statistics of micro-batches until the optimizer's next step; `detach` ends it."""

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        self.quantizers = [m for m in model.modules() if isinstance(m, Quantizer)]
        inner = {id(child) for q in self.quantizers for child in q.modules() if child is not q}
        self.quantizers = [q for q in self.quantizers if id(q) not in inner]
        if not self.quantizers:
            raise VqtoolError(f"{type(model).__name__} holds no quantizer of vqtool to attach to")
        self.waiting: dict[int, tuple[CodebookStats, ...]] = {}
        collect = torch.compiler.disable(self._collect)  # not as a decorator: it imports torch._dynamo, two seconds
        self.handles = [q.register_forward_hook(collect) for q in self.quantizers]
        self.handles.append(optimizer.register_step_post_hook(self._update))

    def detach(self) -> None:
        """Stop updating."""
        for handle in self.handles:
            handle.remove()

    def _collect(self, quantizer: nn.Module, _: Any, result: Quantized) -> None:
        """Add a forward pass's statistics; a second pass of activation checkpointing, in backward, counts for none."""
        if not result.stats or torch._C._current_graph_task_id() != -1:
            return
        before = self.waiting.get(id(quantizer))
        now = result.stats
        self.waiting[id(quantizer)] = now if before is None else tuple(a + b for a, b in zip(before, now, strict=True))

    def _update(self, *_: Any) -> None:
        """Move every codebook; each rank takes part, with nothing where its batches had no token for a codebook."""
        for quantizer in self.quantizers:
            stats = self.waiting.pop(id(quantizer), None)
            if stats is None and isinstance(quantizer, Quantizer):
                rests = not quantizer.training or quantizer.bypass >= 1
                stats = () if rests else getattr(quantizer, "no_stats", tuple)()
            if stats:
                quantizer.update(reduce_stats(stats))


def attach(optimizer: Optimizer, model: nn.Module) -> Attached:
    """Update the codebooks of `model` after every `optimizer.step()`, also through a GradScaler.

    Statistics of micro-batches since the last step are added up, and those of all ranks of torch.distributed. Call it
    once, after the model is built; quantizers of the model need no `update` of one's own then.

    Raises:
        VqtoolError: `model` holds no quantizer of vqtool.
    """
    return Attached(optimizer, model)


def passed_without_update(quantizer: Any) -> None:
    """Note a training pass; warn once if the optimizers have gone on for long since the last update."""
    global _counting
    if not _counting:
        _counting = True
        register_optimizer_step_post_hook(_count)
    began = quantizer.__dict__.setdefault("steps_at_update", _steps)
    if began is not None and _steps - began >= PATIENCE:
        quantizer.steps_at_update = None
        warnings.warn(
            f"{type(quantizer).__name__} has trained {PATIENCE} optimizer steps and its codebook was never updated: "
            "call vqtool.attach(optimizer, model) once, or quantizer.update(result.stats) after each step",
            stacklevel=4,
        )


def updated(quantizer: Any) -> None:
    """Note an update."""
    quantizer.steps_at_update = None


def _count(*_: Any) -> None:
    global _steps
    _steps += 1


@torch.no_grad()
def reduce_stats(stats: Sequence[CodebookStats]) -> tuple[CodebookStats, ...]:
    """The statistics of all ranks' batches, the same on every rank; without several ranks they come back as they are.

    Two collectives of fixed shapes (one sum, one gather), whatever the ranks' batches hold: ranks with few, masked or
    no tokens take part alike, so none waits for another for ever. Whether there are several ranks is asked anew at
    each call, so it does not matter when the module was built. Every rank must call it equally often.
    """
    stats = tuple(stats)
    if not stats or ranks() == 1:
        return stats
    flat = torch.cat([total.reshape(-1) for s in stats for total in (s.counts, s.sums)])
    dist.all_reduce(flat)
    totals = iter(flat.split([total.numel() for s in stats for total in (s.counts, s.sums)]))
    mine = [filled(s.samples, min(len(s.counts), SAMPLES)) for s in stats]
    rows = iter(gather(torch.cat([m.reshape(-1) for m in mine])).split([m.numel() for m in mine], 1))
    reduced = []
    for s in stats:
        counts, sums, samples = next(totals), next(totals).view_as(s.sums), next(rows).reshape(-1, s.sums.shape[1])
        reduced.append(CodebookStats(counts, sums, sample(samples, len(counts))))
    return tuple(reduced)


@torch.no_grad()
def gather_rows(rows: Tensor, most: int) -> Tensor:
    """`rows` [n, d] of all ranks, the same on every rank: at most `most`, an equal share of each."""
    if ranks() == 1:
        return rows
    share = max(1, most // ranks())
    gathered = gather(filled(rows[:share], share)).flatten(0, 1)
    return gathered[gathered.isfinite().all(1)]


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def filled(rows: Tensor, count: int) -> Tensor:
    """`rows` [n, d] and rows of NaN after them [count, d]."""
    return torch.cat([rows, rows.new_full((count - len(rows), rows.shape[1]), torch.nan)])


def gather(mine: Tensor) -> Tensor:
    """That of all ranks [ranks, ...]; of the same shape on each."""
    every = [torch.empty_like(mine) for _ in range(ranks())]
    dist.all_gather(every, mine)
    return torch.stack(every)
