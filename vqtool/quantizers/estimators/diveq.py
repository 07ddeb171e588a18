"""The gradient reaches codes and inputs through the length of the step between them, its direction held fixed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vqtool.api import Estimator


class DiVeQ(Estimator):
    """DiVeQ (Vali et al. 2025, arXiv 2509.26469): z + |e - z| u, with the unit vector u from z to its code e fixed.

    This is the limit of no noise, where the value is the code itself. With the gradient g of the value, the code gets
    its part along u, and z the rest of it; together they get g. It needs no codebook loss, and codes that are trained.
    """

    trains_codes = True

    def pass_on(self, z: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
        if not (torch.is_grad_enabled() and (z.requires_grad or value.requires_grad)):
            return value
        return _Step.apply(z, value, valid)


class _Step(torch.autograd.Function):
    """u (u.g) by the code and g - u (u.g) by z; where both are the same there is no direction, and z gets all."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
        ctx.save_for_backward(z, value, valid)
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        z, value, valid = ctx.saved_tensors
        if valid is not None:
            g = g.masked_fill(~valid[:, None], 0)
        away = value - z
        away = away / away.abs().amax(1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)  # squares must not vanish
        square = away.square().sum(1, keepdim=True)
        along = away * ((away * g).sum(1, keepdim=True) / square.clamp_min(0.5))  # 1 at least, or 0
        return g - along, along, None
