"""The error in the signal's own units relative to each window's rms: what the metric of that name averages."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import Loss
from vqtool.layers.lengths import real_rows


class RelativeErrorLoss(Loss):
    """Mean over windows of rms(estimate - x) / rms(x); dimensionless. Robust: an outlier counts once, not squared."""

    def forward(self, *, estimate: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`estimate` and `x` [B, C, L] in the signal's own units, `mask` [B, L]."""
        return torch.cat([relative_errors(*rows) for rows in real_rows(mask, estimate.float(), x.float())]).mean()


def relative_errors(estimate: Tensor, x: Tensor) -> Tensor:
    """Of each window [B]."""
    error = (estimate - x).square().flatten(1).mean(1)
    return (error / (x.square().flatten(1).mean(1) + 1e-30) + 1e-5).sqrt()
