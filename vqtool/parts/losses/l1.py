"""Mean absolute error of the normalised signal; outliers weigh less than in `mse`."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Loss


class L1(Loss):
    """Mean of |x_hat - target| over everything; without a unit where the norm takes the gain away."""

    def forward(self, *, x_hat: Tensor, target: Tensor) -> Tensor:
        """`x_hat`, `target` [B, C, L] -> scalar."""
        return (x_hat - target).abs().mean()
