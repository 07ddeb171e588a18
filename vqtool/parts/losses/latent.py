"""How far the latents that a prior predicts are from the encoder's, relative to their spread."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Loss


class Latent(Loss):
    """mean over steps of the root of |latent_hat - latent|^2 / |latent|^2: robust, in the unit of a relative error."""

    def forward(self, *, latent_hat: Tensor, latent: Tensor) -> Tensor:
        """`latent_hat` [B, T, Q, D], one prediction per code; `latent` [B, T, D]."""
        latent = latent.detach().float()
        error = (latent_hat.float() - latent[:, :, None]).square().mean(-1)
        size = latent.square().mean((1, 2), keepdim=True) + 1e-30
        return (error / size + 1e-5).sqrt().mean()
