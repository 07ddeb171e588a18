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
    no tokens take part alike, so none waits for another for ever. Whether there are several ranks is asked anew at
    each call, so it does not matter when the module was built. Every rank must call it equally often.
    """
    stats = tuple(stats)
    if not stats or not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return stats
    totals = torch.cat([part.reshape(-1) for s in stats for part in (s.counts, s.sums)])
    dist.all_reduce(totals)
    mine = torch.cat([padded(s).reshape(-1) for s in stats])
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, mine)
    return split(stats, totals, torch.stack(gathered))


def padded(stats: CodebookStats) -> Tensor:
    """The samples with NaN rows up to the most there can be: min(K, SAMPLES)."""
    size = min(stats.counts.shape[0], SAMPLES)
    full = stats.samples.new_full((size, stats.sums.shape[1]), torch.nan)
    full[: stats.samples.shape[0]] = stats.samples
    return full


def split(stats: Sequence[CodebookStats], totals: Tensor, samples: Tensor) -> tuple[CodebookStats, ...]:
    """Cut the flat `totals` [n] and `samples` [ranks, m] into one part per codebook."""
    parts, at, sample_at = [], 0, 0
    for s in stats:
        size, width = s.sums.shape
        counts = totals[at : at + size]
        sums = totals[at + size : at + size + size * width].view(size, width)
        at += size + size * width
        most = min(size, SAMPLES) * width
        rows = samples[:, sample_at : sample_at + most].reshape(-1, width)
        sample_at += most
        parts.append(CodebookStats(counts, sums, sample(rows, size)))
    return tuple(parts)


@torch.no_grad()
def gather_rows(rows: Tensor, most: int) -> Tensor:
    """`rows` [n, d] of all ranks, the same on every rank: at most `most`, an equal share of each."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    share = max(1, most // dist.get_world_size())
    mine = rows.new_full((share, rows.shape[1]), torch.nan)
    mine[: len(rows)] = rows[:share]
    every = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(every, mine)
    gathered = torch.cat(every)
    return gathered[gathered.isfinite().all(1)]
