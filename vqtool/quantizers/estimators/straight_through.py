"""The gradient passes unchanged, as if nothing had been quantized."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vqtool.api import Estimator

SHORT = 0.05
CHUNK = 2**18  # numbers handled at a time: they stay in the cache between the steps of a chunk


class StraightThrough(Estimator):
    """The straight-through estimator (Bengio et al. 2013, arXiv 1308.3432): the gradient by z is that by the code."""

    identity = True

    def estimate(self, z: Tensor, value: Tensor) -> Tensor:
        return AddGradient.apply(z, value)


def straight_through(z: Tensor, value: Tensor, sse: Tensor, commit_grad: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(`value`, `sse`) [N, d] and []: the first has the gradient of `z`, the second its own by `z`.

    Args:
        z: [N, d] the inputs.
        value: [N, d] what they are replaced by; a gradient that it wants, it gets as well.
        sse: the sum of |input - code|^2 over valid tokens (and levels).
        commit_grad: [N, d] half the gradient of `sse` by `z`; None: z - value.
    """
    if not (torch.is_grad_enabled() and (z.requires_grad or value.requires_grad)):
        return value, sse
    return _StraightThrough.apply(z, value, sse, commit_grad)


def mean_of(total: Tensor, n_values: Tensor | int) -> Tensor:
    """`total` / `n_values`, 0 of nothing."""
    return total / (n_values.clamp_min(1) if isinstance(n_values, Tensor) else max(n_values, 1))


class _StraightThrough(torch.autograd.Function):
    """The custom function behind `straight_through`; x + (value - x).detach() would round."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, value: Tensor, sse: Tensor, commit_grad: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*((z, value, None) if commit_grad is None else (None, None, commit_grad)))
        return value.view_as(value), sse.view_as(sse)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor | None, by_sse: Tensor | None) -> tuple[Tensor | None, ...]:
        z, value, commit_grad = ctx.saved_tensors
        by_z = by_value
        if by_sse is not None:
            away, free = (z - value, True) if commit_grad is None else (commit_grad, False)
            upstream = torch.zeros_like(away) if by_value is None else by_value
            by_z = torch.addcmul(upstream, away, 2 * by_sse, out=away if free else None)
        return by_z, by_value if ctx.needs_input_grad[1] else None, None, None


class AddGradient(torch.autograd.Function):
    """The value of `value`, bit for bit, and its gradient to both of them: `carrier` and `value`."""

    @staticmethod
    def forward(ctx: Any, carrier: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor) -> tuple[Tensor, Tensor]:
        return by_value, by_value


def unit(x: Tensor) -> Tensor:
    """`x` [N, d] with rows of length one; rows shorter than `SHORT` get the gradient of that length: it is bounded."""
    length = x.norm(dim=1, keepdim=True)
    value = x.detach() / length.detach().clamp_min(torch.finfo(x.dtype).tiny)
    return AddGradient.apply(x / length.clamp_min(SHORT), value) if x.requires_grad else value


def squared_distance(z: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
    """The sum of |z - value|^2 over the valid rows, without a temporary of the size of `z`; no gradient."""
    total, count = z.new_zeros(()), z.shape[0]
    at_once = torch.compiler.is_compiling() or z.device.type != "cpu"
    step = max(1, count if at_once else CHUNK // max(1, z.shape[1]))
    for part in [slice(None)] if at_once else slices(count, step):
        away = z.detach()[part] - value.detach()[part]
        if valid is not None:
            away = away.masked_fill(~valid[part, None], 0)
        total = total + (away.square().sum() if at_once else torch.dot(away.view(-1), away.view(-1)))
    return total


def slices(count: int, step: int) -> Iterator[slice]:
    """Cuts of `count` rows into runs of `step`."""
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
