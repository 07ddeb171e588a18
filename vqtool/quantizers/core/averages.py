"""Codes that follow their inputs: counts and sums by code, the moving average, the revival of codes without use."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FORGOTTEN = 1e-30  # a use below this becomes zero, before it turns into slow denormal numbers


def look_up(table: Tensor, codes: Tensor, valid: Tensor | None) -> Tensor:
    """Rows of `table` [K, d] for `codes` [N]; a zero row where `valid` [N] is false (None: all are)."""
    if valid is None:
        return table.index_select(0, codes)
    table = torch.cat([table, table.new_zeros(1, table.shape[1])])
    return table.index_select(0, torch.where(valid, codes, table.shape[0] - 1))


def totals(tokens: Tensor, codes: Tensor, valid: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """How many of the valid `tokens` [N, d] chose each of `size` codes [K], and their sums [K, d].

    Tokens that do not count go to a row of their own, which is cut off.
    """
    rows = size
    if valid is not None:
        rows, codes = size + 1, torch.where(valid, codes, size)
    counts = tokens.new_zeros(rows).index_add_(0, codes, tokens.new_ones(()).expand(codes.shape))
    sums = tokens.new_zeros(rows, tokens.shape[1])
    if tokens.device.type == "cpu":  # several times as fast there as index_add_
        sums.scatter_add_(0, codes[:, None].expand_as(tokens), tokens)
    else:
        sums.index_add_(0, codes, tokens)
    return counts[:size], sums[:size]


@torch.no_grad()
def follow(
    codes: Tensor, weights: Tensor, counts: Tensor, sums: Tensor, samples: Tensor, decay: float, below: float
) -> None:
    """Move `codes` [..., K, d] and `weights` [..., K] in place; see `Codebook.update`."""
    fresh = weights.sum(-1, keepdim=True) == 0
    before = F.threshold(torch.where(fresh, counts.mean(-1, keepdim=True), weights), FORGOTTEN, 0)
    torch.add(decay * before, (1 - decay) * counts, out=weights)
    rate = (1 - decay) / weights.clamp_min(FORGOTTEN)  # of codes that nobody chose, 0 is added
    counts = counts.unsqueeze(-1)
    codes.addcmul_(rate.unsqueeze(-1), sums - counts * codes)
    revive(codes, weights, samples, below)


@torch.no_grad()
def revive(codes: Tensor, weights: Tensor, samples: Tensor, below: float) -> Tensor:
    """Replace, in place, the rows of `codes` [..., K, d] whose use is under `below` times uniform use; returns which.

    `weights` [..., K] is the moving average of use; a revived code gets uniform use: it survives the next checks. The
    threshold is a share of uniform use, hence the same for every batch size and K. The replacements come from
    `samples` [..., S, d] (rows that are not finite are skipped), in order and with no draw: all ranks revive alike.
    """
    if below <= 0 or samples.shape[-2] == 0:
        return torch.zeros_like(weights, dtype=torch.bool)
    uniform = weights.mean(-1, keepdim=True)
    unusable = (samples * 0).sum(-1) != 0  # NaN where a number is not finite
    order = unusable.argsort(stable=True, dim=-1)
    dead = weights < below * uniform
    rank = dead.cumsum(-1)  # from 1
    revived = dead & (rank <= samples.shape[-2] - unusable.sum(-1, keepdim=True))
    chosen = order.gather(-1, rank.clamp(1, samples.shape[-2]) - 1)
    fresh = samples.gather(-2, chosen.unsqueeze(-1).expand_as(codes)).to(codes.dtype)
    torch.where(revived.unsqueeze(-1), fresh, codes, out=codes)
    torch.where(revived, uniform, weights, out=weights)
    return revived
