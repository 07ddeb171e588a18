"""A linear map from all tokens at once."""

from __future__ import annotations

from torch import Tensor, nn

from vqtool.api import Classifier


class LinearClassifier(Classifier):
    """[B, T, D] -> T * D features -> class scores: little to overfit with."""

    def __init__(self, dim: int, tokens: int, classes: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim * tokens, classes)

    def forward(self, z: Tensor) -> Tensor:
        return self.map(z.flatten(1))
