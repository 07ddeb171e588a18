"""How far the features that the discriminator sees in the output are from those that it sees in the target."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import Loss


class FeatureMatching(Loss):
    """Mean over layers and scales of |f(x_hat) - f(target)| / |f(target)|, f being features of the `[discriminator]`.

    A perceptual distance without weights of another network: the features are learned from the data, beside the model.
    Larsen et al. 2016 (arXiv 1512.09300); relative as in EnCodec (arXiv 2210.13438). It needs a loss that trains the
    discriminator, such as `hinge`.
    """

    def forward(self, *, fake_features: list[list[Tensor]], real_features: list[list[Tensor]]) -> Tensor:
        """A list of features for each scale -> scalar."""
        return torch.stack([
            (fake - real).abs().mean() / real.abs().mean().clamp_min(1e-8)
            for fakes, reals in zip(fake_features, real_features, strict=True)
            for fake, real in zip(fakes, reals, strict=True)
        ]).mean()  # fmt: skip
