"""Statistics of all ranks together: sums of counts and sums, and one sample of all their inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from vqtool.api import CodebookStats
from vqtool.api.quantizer import SAMPLES, sample


@torch.no_grad()
def reduce_stats(stats: Sequence[CodebookStats]) -> tuple[CodebookStats, ...]:
    """The statistics of all ranks' batches, the same on every rank; without several ranks they come back as they are.

    Two collectives of fixed shapes (one sum, one gather), whatever the ranks' batches hold: ranks with few, masked or
    no tokens take part alike, so none waits for another forever. Whether there are several ranks is asked anew at
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
