"""A residual multilayer perceptron: what conditioners and regressors are made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vqtool.layers.init import zeroed


class ResidualMlp(nn.Module):
    """[B, inputs] -> [B, width]: a linear map, `layers` pre-norm residual layers starting at identity, a last norm."""

    def __init__(self, inputs: int, width: int, layers: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.start = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(_Layer(width, dropout) for _ in range(layers))
        self.end = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, inputs]."""
        h = self.start(x)
        for layer in self.layers:
            h = layer(h)
        return self.end(h)


class _Layer(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.second = zeroed(nn.Linear(width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.dropout(F.gelu(self.first(self.norm(x)))))
