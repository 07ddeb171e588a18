"""How far the latents that a prior predicts are from the encoder's, relative to their spread."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge
from torch import Tensor

from vqtool.api import DataSpec, Loss


class Latent(Loss):
    """Mean over steps of sqrt(|latent_hat - latent|^2 / |latent|^2): robust, in the unit of a relative error.

    The first code of a token is the hardest to predict, since no earlier code of it is known; `first` adds its error
    once more, with that weight.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        first: Annotated[float, Ge(0), Doc("added weight of the prediction before any code of a token")] = 1.0,
    ) -> None:
        super().__init__(spec)
        self.first = first

    def forward(self, *, latent_hat: Tensor, latent: Tensor) -> Tensor:
        """`latent_hat` [B, T, Q, D], one prediction per code; `latent` [B, T, D]."""
        latent = latent.detach().float()
        error = (latent_hat.float() - latent[:, :, None]).square().mean(-1)
        size = latent.square().mean((1, 2), keepdim=True) + 1e-30
        relative = (error / size + 1e-5).sqrt()  # [B, T, Q]
        return relative.mean() + self.first * relative[:, :, 0].mean()
