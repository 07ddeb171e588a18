"""Mean absolute error of the normalised signal; outliers weigh less than in `mse`."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Loss
from vqtool.layers.lengths import real_values


class L1(Loss):
    """Mean of |x_hat - target| over everything; without a unit where the norm takes the gain away."""

    def forward(self, *, x_hat: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """`x_hat`, `target` [B, C, L], `mask` [B, L] -> scalar."""
        return real_values((x_hat - target).abs(), mask).mean()
