"""The gradient passes unchanged, as if nothing had been quantized."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import Estimator
from vqtool.quantizers.core.straight_through import straight_through


class StraightThrough(Estimator):
    """The straight-through estimator (Bengio et al. 2013, arXiv 1308.3432): the gradient by z is that by the code."""

    identity = True

    def pass_on(self, z: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
        return straight_through(z, value, valid, torch.zeros_like(z[:0].sum()), 0)[0]
