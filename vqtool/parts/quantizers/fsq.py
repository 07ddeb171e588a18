"""Finite scalar quantization: each of a few features is rounded to a fixed number of steps."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import MinLen
from torch import Tensor, nn

from vqtool.api import Quantized, Quantizer
from vqtool.errors import VqtoolError
from vqtool.nn.straight_through import Carry
from vqtool.nn.tokens import cleaned, flat, own_precision

EDGE = 1e-3  # how far beyond the outermost step the bounded value may reach (paper's appendix A.1)


class FSQ(Quantizer):
    """FSQ (Mentzer et al. 2023, arXiv 2309.15505): no codebook, so no collapse and nothing to follow or to start.

    z -> W_in z -> bounded by tanh -> rounded, straight-through -> W_out. The linear maps are left out where the latent
    has as many features as `levels` has entries. There are prod(levels) codes in one codebook. No terms.
    """

    straight_through = False
    nearest = False

    def __init__(
        self,
        dim: int,
        *,
        levels: Annotated[tuple[int, ...], MinLen(1), Doc("steps per rounded feature, each at least 2")] = (8, 5, 5, 5),
    ) -> None:
        super().__init__()
        if min(levels) < 2:
            raise VqtoolError("`levels` needs at least 2 steps in each feature", hint="levels = [8, 5, 5, 5]")
        self.dim = dim
        self.codebook_sizes = (math.prod(levels),)
        width = len(levels)
        self.inwards: nn.Module = nn.Identity() if dim == width else nn.Linear(dim, width)
        self.outwards: nn.Module = nn.Identity() if dim == width else nn.Linear(width, dim)
        steps = torch.tensor(levels)
        self.register_buffer("steps", steps, persistent=False)
        self.register_buffer("bases", torch.cat([steps.new_ones(1), steps.cumprod(0)[:-1]]), persistent=False)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        with own_precision(z):
            tokens, valid, not_finite = cleaned(*flat(z, mask))
            bounded = self.bounded(self.inwards(tokens))
            steps = bounded.detach().round()
            rounded = Carry.apply(bounded, steps) if bounded.requires_grad else steps
            codes = ((steps.long() + self.steps // 2) * self.bases).sum(1)
            passed = self.outwards(rounded / (self.steps // 2))
            if valid is not None:
                codes, passed = codes.masked_fill(~valid, -1), passed.masked_fill(~valid[:, None], 0)
            return Quantized(
                z=passed.view(z.shape),
                codes=codes.view(*z.shape[:2], 1),
                hard=passed.detach().view(z.shape),
                not_finite=not_finite,
            )

    def bounded(self, features: Tensor) -> Tensor:
        """`features` [N, F] within the outermost steps; an even number of steps is shifted by half a step."""
        half = (self.steps - 1) * (1 + EDGE) / 2
        offset = torch.where(self.steps % 2 == 0, 0.5, 0.0)
        shift = torch.atanh(offset / half)
        return torch.tanh(features + shift) * half - offset

    def decode(self, codes: Tensor) -> Tensor:
        index = codes.reshape(-1).long()
        with own_precision(self.bases):
            steps = (index.clamp_min(0)[:, None] // self.bases) % self.steps - self.steps // 2
            features = self.outwards(steps.float() / (self.steps // 2))
        return features.masked_fill((index < 0)[:, None], 0).view(*codes.shape[:2], self.dim)
