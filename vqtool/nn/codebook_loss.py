"""The codebook loss: pulls each code to the inputs that chose it, and reaches nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vqtool.nn.codebook import Found


def codebook_loss(table: Tensor, tokens: Tensor, found: Found, squares: Tensor, pairs: Tensor | int) -> Tensor:
    """squares / pairs as a term whose gradient goes to `table` [K, d] only (van den Oord et al. 2017, eq. 3).

    Args:
        table: the codes, or what they are computed from, if it wants a gradient.
        tokens: [N, d] the inputs, as constants; their `found` codes.
        squares: the sum of |input - code|^2 over valid tokens, `pairs` the number of squared numbers.
    """
    term = squares / (pairs.clamp_min(1) if isinstance(pairs, Tensor) else max(pairs, 1))
    if not (torch.is_grad_enabled() and table.requires_grad):
        return term
    return CodebookLoss.apply(table, tokens.detach(), found.codes, found.valid, term, pairs)


class CodebookLoss(torch.autograd.Function):
    """2 (n_k e_k - s_k) / pairs, by counts n and sums s of the inputs instead of a difference per token."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, tokens: Tensor, codes: Tensor, valid: Tensor | None, term: Tensor, pairs: Tensor | int
    ) -> Tensor:
        ctx.pairs = None if isinstance(pairs, Tensor) else pairs
        ctx.save_for_backward(table, tokens, codes, valid, pairs if isinstance(pairs, Tensor) else None)
        return term.view_as(term)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_term: Tensor) -> tuple[Tensor | None, ...]:
        table, tokens, codes, valid, pairs = ctx.saved_tensors
        counts, sums = totals(tokens, codes, valid, table.shape[0])
        weight = 2 * by_term / (pairs.clamp_min(1) if pairs is not None else max(ctx.pairs, 1))
        return ((counts[:, None] * table - sums) * weight, None, None, None, None, None)


def totals(tokens: Tensor, codes: Tensor, valid: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """How many of the valid `tokens` [N, d] chose each of `size` codes [K], and their sums [K, d].

    Tokens that do not count go to a row of their own, which is cut off: what they hold reaches no other row.
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
