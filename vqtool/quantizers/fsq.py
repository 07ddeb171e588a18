"""Finite scalar quantization: each of a few features is rounded to a fixed number of steps."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import MinLen
from torch import Tensor

from vqtool.errors import VqtoolError
from vqtool.quantizers.core.composable import Coded, Composable, Layout
from vqtool.quantizers.estimators.straight_through import AddGradient
from vqtool.quantizers.vq import Weights

EDGE = 1e-3  # how far beyond the outermost step the bounded value may reach (paper's appendix A.1)


class FSQ(Composable):
    """FSQ (Mentzer et al. 2023, arXiv 2309.15505): no codebook, so no collapse and nothing to follow or to start.

        self.fsq = FSQ(64, levels=(8, 5, 5, 5))     # 1000 codes

    z -> W_in z -> bounded by tanh -> rounded, straight-through -> W_out. The linear maps are left out where the latent
    has as many features as `levels` has entries. There are prod(levels) codes in one codebook. No terms.
    """

    straight_through = False
    nearest = False
    bounded = True
    steps: Tensor
    bases: Tensor

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *,
        levels: Annotated[tuple[int, ...], MinLen(1), Doc("steps per rounded feature, each at least 2")] = (8, 5, 5, 5),
    ) -> None:  # fmt: skip
        if min(levels) < 2:
            raise VqtoolError("`levels` needs at least 2 steps in each feature", hint="levels = [8, 5, 5, 5]")
        super().__init__(dim, layout, weights, inside=0 if dim == len(levels) else len(levels), bias=True)
        self.codebook_sizes = (math.prod(levels),)
        steps = torch.tensor(tuple(levels))
        self.register_buffer("steps", steps, persistent=False)
        self.register_buffer("bases", torch.cat([steps.new_ones(1), steps.cumprod(0)[:-1]]), persistent=False)

    def coded(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Coded:
        bounded = self.limited(tokens)
        steps = bounded.detach().round()
        rounded = AddGradient.apply(bounded, steps) if bounded.requires_grad else steps
        codes = ((steps.long() + self.steps // 2) * self.bases).sum(1)
        value = rounded / (self.steps // 2)
        if valid is not None:
            codes, value = codes.masked_fill(~valid, -1), value.masked_fill(~valid[:, None], 0)
        return Coded(codes[:, None], value, complete=True)

    def limited(self, features: Tensor) -> Tensor:
        """`features` [N, F] within the outermost steps; an even number of steps is shifted by half a step."""
        half = (self.steps - 1) * (1 + EDGE) / 2
        offset = torch.where((self.steps % 2).eq(0), 0.5, 0.0)
        shift = torch.atanh(offset / half)
        return torch.tanh(features + shift) * half - offset

    def decoded(self, codes: Tensor) -> Tensor:
        steps = (codes.clamp_min(0) // self.bases) % self.steps - self.steps // 2
        return (steps.to(self.own_dtype) / (self.steps // 2)).masked_fill(codes < 0, 0)
