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

    def forward(
        self, *, latent_hat: Tensor, latent: Tensor, mask: Tensor | None = None, codes: Tensor | None = None
    ) -> Tensor:
        """`latent_hat` [B, T, Q, D], one prediction per code; `latent` [B, T, D], 0 where `mask` has `codes` of -1."""
        latent = latent.detach().float()
        error = (latent_hat.float() - latent[:, :, None]).square().mean(-1)
        size = latent.square().mean((1, 2), keepdim=True) + 1e-30
        real = None if mask is None or codes is None else (codes >= 0).any(2)
        if real is not None:
            size = size * latent.shape[1] / real.sum(1)[:, None, None].clamp_min(1)
        relative = (error / size + 1e-5).sqrt()  # [B, T, Q]
        relative = relative if real is None else relative[real]
        return relative.mean() + self.first * relative[..., 0].mean()
