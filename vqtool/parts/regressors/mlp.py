"""A residual network on the condition's vector and the latents."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from vqtool.api import Condition, Regressor, Renamed
from vqtool.layers.init import zeroed
from vqtool.layers.residual_mlp import ResidualMlp


class MlpRegressor(Regressor):
    """([B, M], [B, T, D]) -> [B, outputs]; `latent_dim` is T * D."""

    def __init__(
        self,
        condition_dim: int,
        latent_dim: int,
        outputs: int,
        *,
        width: Annotated[int, Gt(0), Doc("features inside")] = 128,
        layers: Annotated[int, Ge(0), Doc("residual layers")] = 1,
        dropout: Annotated[float, Interval(ge=0, lt=1), Doc("dropout inside the residual layers")] = 0.0,
        zero_init: Annotated[
            bool, Renamed("silent"), Doc("start with all outputs at zero, where the norm already predicts the scalars")
        ] = False,
    ) -> None:
        super().__init__()
        self.inner = ResidualMlp(condition_dim + latent_dim, width, layers, dropout=dropout)
        end = nn.Linear(width, outputs)
        self.end = zeroed(end) if zero_init else end

    def forward(self, condition: Condition, z: Tensor) -> Tensor:
        """The scalars, standardised as the norm sends them."""
        return self.end(self.inner(torch.cat([condition.vector, z.flatten(1)], dim=1)))
