"""The gradient reaches codes and inputs through the length of the step between them, its direction held fixed."""

import torch
from torch import Tensor

from vqtool.api import Estimator
from vqtool.quantizers.estimators.straight_through import AddGradient


class DiVeQ(Estimator):
    """DiVeQ (Vali et al. 2025, arXiv 2509.26469): z + |e - z| u, with the unit vector u from z to its code e fixed.

    This is the limit of no noise, where the value is the code itself. With the gradient g of the value, the code gets
    its part along u, and z the rest of it; together they get g. It needs no codebook loss, and codes that are trained.
    """

    trains_codes = True

    def estimate(self, z: Tensor, value: Tensor) -> Tensor:
        away = (value - z).detach()
        away = away / away.abs().amax(1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)  # squares must not vanish
        square = away.square().sum(1, keepdim=True).clamp_min(0.5)  # 1 at least; 0 where both are the same: z gets all
        step = (away * (value - z)).sum(1, keepdim=True) / square
        return AddGradient.apply(z + away * step, value.detach())
