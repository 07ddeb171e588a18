"""The error in the signal's own units relative to each window's rms: what the metric of that name averages."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Loss


class RelativeErrorLoss(Loss):
    """Mean over windows of rms(estimate - x) / rms(x); dimensionless. Robust: an outlier counts once, not squared."""

    def forward(self, *, estimate: Tensor, x: Tensor) -> Tensor:
        """`estimate` and `x` [B, C, L] in the signal's own units."""
        x = x.float()
        error = (estimate.float() - x).square().flatten(1).mean(1)
        return (error / (x.square().flatten(1).mean(1) + 1e-30) + 1e-5).sqrt().mean()
