"""A residual network on what is known of the whole window and of each of its positions."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import Condition, Regressor
from vqtool.layers.init import zeroed
from vqtool.layers.residual_mlp import ResidualMlp


class StepMlp(Regressor):
    """([B, M], [B, T, D]) -> [B, T, outputs], every position alike; `latent_dim` is D."""

    def __init__(
        self,
        condition_dim: int,
        latent_dim: int,
        outputs: int,
        *,
        width: Annotated[int, Gt(0), Doc("features inside")] = 160,
        layers: Annotated[int, Ge(0), Doc("residual layers, of the window and of its positions each")] = 1,
    ) -> None:
        super().__init__()
        self.dim = width
        self.window = ResidualMlp(condition_dim, width, layers)
        self.position = nn.Linear(latent_dim, width)
        self.both = nn.Linear(width, width)
        self.inner = ResidualMlp(width, width, layers)
        self.end = zeroed(nn.Linear(width, outputs))

    def summary(self, vector: Tensor) -> Tensor:
        """[B, dim] what the network makes of the whole window, from its condition [B, M]."""
        return self.window(vector)

    def forward(self, condition: Condition, z: Tensor) -> Tensor:
        """The outputs, zero before training."""
        known = self.both(self.summary(condition.vector))[:, None] + self.position(z)
        return self.end(self.inner(F.gelu(known)))
