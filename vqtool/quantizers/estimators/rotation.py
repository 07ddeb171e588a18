"""The rotation trick: the gradient that reaches an input is turned and scaled as the input is onto its code."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor
from torch.autograd.function import once_differentiable

from vqtool.api import Estimator

SMALL = 1e-6  # a cosine to -1 closer than this leaves the plane of the rotation undefined


class Rotation(Estimator):
    """The rotation trick (Fifty et al. 2024, arXiv 2410.06424, section 4.3).

    The gradient g reaches z as s R^T g, with R z / |z| = code / |code| and s = |code| / |z|, at most `largest_gain`, so
    that a vanishing input cannot blow up. Where the rotation is undefined (an input or code of length zero, opposite
    directions) the gradient passes unchanged.
    """

    def __init__(
        self, *, largest_gain: Annotated[float, Gt(0), Doc("bound of the gradient's scale |code| / |z|")] = 2.0
    ) -> None:
        self.largest_gain = largest_gain

    def estimate(self, z: Tensor, value: Tensor) -> Tensor:
        return _RotateBack.apply(z, value, self.largest_gain)


class _RotateBack(torch.autograd.Function):
    """R = I - 2 r r^T + 2 q z^T for unit z, q and r = (z + q) / |z + q| (Fifty et al. 2024, section 4.3)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, value: Tensor, largest_gain: float) -> Tensor:
        ctx.save_for_backward(z, value)
        ctx.largest_gain = largest_gain
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        z, value = ctx.saved_tensors
        tiny = torch.finfo(z.dtype).tiny
        z_length, q_length = z.norm(dim=1, keepdim=True), value.norm(dim=1, keepdim=True)
        z_unit, q_unit = z / z_length.clamp_min(tiny), value / q_length.clamp_min(tiny)
        middle = z_unit + q_unit
        square = middle.square().sum(1, keepdim=True)
        turned = g - 2 * middle * ((middle * g).sum(1, keepdim=True) / square.clamp_min(SMALL))
        turned = turned + 2 * z_unit * (q_unit * g).sum(1, keepdim=True)
        gain = (q_length / z_length.clamp_min(tiny)).clamp_max(ctx.largest_gain)
        defined = (square > SMALL) & (z_length > tiny) & (q_length > tiny)
        return torch.where(defined, gain * turned, g), g if ctx.needs_input_grad[1] else None, None
