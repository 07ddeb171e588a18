"""A residual multilayer perceptron over all tokens at once."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from vqtool.api import Classifier
from vqtool.layers.residual_mlp import ResidualMlp


class MlpClassifier(Classifier):
    """[B, T, D] -> T * D features -> residual layers -> class scores: a token's place is known."""

    def __init__(
        self,
        dim: int,
        tokens: int,
        classes: int,
        *,
        width: Annotated[int, Gt(0), Doc("features inside")] = 256,
        layers: Annotated[int, Ge(0), Doc("residual layers")] = 1,
        dropout: Annotated[float, Interval(ge=0, lt=1), Doc("dropout inside the residual layers")] = 0.0,
    ) -> None:
        super().__init__()
        self.inner = ResidualMlp(dim * tokens, width, layers, dropout=dropout)
        self.end = nn.Linear(width, classes)

    def forward(self, z: Tensor) -> Tensor:
        return self.end(self.inner(z.flatten(1)))
