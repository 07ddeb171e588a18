"""Mean squared error of the normalised signal."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Loss


class Mse(Loss):
    """Mean of (x_hat - target)^2 over everything; without a unit where the norm takes the gain away."""

    def forward(self, *, x_hat: Tensor, target: Tensor) -> Tensor:
        """`x_hat`, `target` [B, C, L] -> scalar."""
        return (x_hat - target).square().mean()
