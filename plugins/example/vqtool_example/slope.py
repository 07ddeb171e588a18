"""A loss: the mean squared error of the signal's slope."""

from torch import Tensor

from vqtool.api import Loss


class Slope(Loss):
    """It reads what its parameters name: here two outputs of the task `autoencode`, both [B, C, L]."""

    def forward(self, *, x_hat: Tensor, target: Tensor) -> Tensor:
        return (x_hat - target).diff().square().mean()
