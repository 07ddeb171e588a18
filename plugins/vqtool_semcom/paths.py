"""From the posterior over codes to vectors, and how the values and gradients of soft and hard path are mixed."""

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
