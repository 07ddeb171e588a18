"""The hinge loss of a decoder and its discriminator, each its own side."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import Loss


class Hinge(Loss):
    """Needs a `[discriminator]`: the decoder makes max(0, 1 - D(x_hat)) small, the discriminator the hinge of both.

    Lim and Ye 2017 (arXiv 1705.02894); the decoder's side as in EnCodec (arXiv 2210.13438), which ends where the
    discriminator is convinced. Means over the places of a scale, then over scales.
    """

    def forward(self, *, fake_logits: list[Tensor]) -> Tensor:
        """`fake_logits`: a tensor for each scale -> scalar."""
        return torch.stack([(1 - fake).relu().mean() for fake in fake_logits]).mean()

    def discriminate(self, *, real_logits: list[Tensor], fake_logits: list[Tensor]) -> Tensor:
        """max(0, 1 - D(target)) + max(0, 1 + D(x_hat)): what the discriminator makes small."""
        pairs = zip(real_logits, fake_logits, strict=True)
        return torch.stack([(1 - real).relu().mean() + (1 + fake).relu().mean() for real, fake in pairs]).mean()
