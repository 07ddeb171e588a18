"""Revival: codes that are hardly used start again at inputs that were seen."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def revive(codes: Tensor, weights: Tensor, samples: Tensor, below: float) -> Tensor:
    """Replace, in place, the rows of `codes` [K, d] whose use is under `below` times uniform use; returns which [K].

    `weights` [K] is the moving average of use; a revived code gets uniform use, so that it survives the next checks.
    The threshold is a share of uniform use, hence the same for every batch size and K. The replacements come from
    `samples` [S, d] (rows that are not finite are skipped), in order and with no draw: all ranks revive alike.
    """
    if below <= 0 or samples.shape[0] == 0:
        return torch.zeros_like(weights, dtype=torch.bool)
    uniform = weights.mean()
    usable = samples.isfinite().all(1)
    samples = samples[usable.logical_not().argsort(stable=True)]
    dead = weights < below * uniform
    rank = dead.cumsum(0) - 1
    revived = dead & (rank < usable.sum())
    fresh = samples[rank.clamp(0, samples.shape[0] - 1)]
    codes.copy_(torch.where(revived[:, None], fresh.to(codes.dtype), codes))
    weights.copy_(torch.where(revived, uniform, weights))
    return revived
