"""What arrived on the soft and the hard path: vectors, bit errors, and how values and gradients are mixed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vqtool.api import Quantized
from vqtool.quantizers.estimators.straight_through import AddGradient

Pair = tuple[Tensor, Tensor]  # (soft, hard)


def mean_vectors(posteriors: Sequence[Tensor], tables: Sequence[Tensor]) -> Tensor:
    """The mean code vectors [B, T, D], summed over codebooks."""
    return torch.stack([p @ table for p, table in zip(posteriors, tables, strict=True)]).sum(0)


def straight_through(arrived: Tensor, quantized: Quantized) -> Tensor:
    """The value of `arrived` with its own gradient and, in addition, the identity to what the quantizer passed on."""
    return AddGradient.apply(quantized.z, arrived) if quantized.z.requires_grad else arrived


def towards_hard(pair: Pair, share: float) -> Tensor:
    """soft + share (hard - soft), with the gradient of `soft`."""
    soft, hard = pair
    return soft + share * (hard - soft).detach()


def bit_error_share(llr: Tensor, bits: Tensor) -> Tensor:
    """The share of wrong bits [B] among those decided by the sign of `llr` [B, n]."""
    return ((llr > 0) != (bits > 0.5)).float().mean(1)


def put(trace: dict[str, Tensor], name: str, value: Tensor, rows: Tensor, count: int) -> None:
    """Set `rows` of a [`count`, ...] tensor of the trace, as wide as its widest row; NaN where a row is shorter."""
    held = trace.get(name, value.new_full((count, 0, *value.shape[2:]), torch.nan))
    if short := max(0, value.shape[1] - held.shape[1]):
        held = torch.cat([held, held.new_full((count, short, *value.shape[2:]), torch.nan)], 1)
    held[rows, : value.shape[1]] = value.detach()
    trace[name] = held
