"""Squared error in the signal's own units, relative to each window's energy: what a relative error metric squares."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Loss


class RelativeMse(Loss):
    """mean over windows of |estimate - x|^2 / |x|^2; dimensionless."""

    def forward(self, *, estimate: Tensor, x: Tensor) -> Tensor:
        """`estimate` and `x` [B, C, L] in the signal's own units."""
        x = x.float()
        error = (estimate.float() - x).square().flatten(1).mean(1)
        return (error / (x.square().flatten(1).mean(1) + 1e-30)).mean()
