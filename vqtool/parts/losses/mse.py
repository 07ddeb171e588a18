"""Mean squared error of the normalised signal."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Loss
from vqtool.layers.lengths import real_values


class Mse(Loss):
    """Mean of (x_hat - target)^2 over everything; without a unit where the norm takes the gain away."""

    def forward(self, *, x_hat: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """`x_hat`, `target` [B, C, L], `mask` [B, L] -> scalar."""
        return real_values((x_hat - target).square(), mask).mean()
