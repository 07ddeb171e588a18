"""The nonlinearities that convolutional parts may name."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["gelu", "elu", "snake"]


class Snake(nn.Module):
    """x + sin^2(a x) / a with a trained a > 0 for each channel (Ziyin et al. 2020, arXiv 2006.08195).

    Monotone and, unlike GELU and ELU, periodic beyond the range seen, which suits oscillating signals.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_rate = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, C, L]."""
        rate = self.log_rate.exp()
        return x + (rate * x).sin().square() / rate


def activation(name: Activation, channels: int) -> nn.Module:
    """The module of that name for `channels` channels."""
    return {"gelu": nn.GELU, "elu": nn.ELU}[name]() if name != "snake" else Snake(channels)
