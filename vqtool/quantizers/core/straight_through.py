"""Straight-through: the code vectors flow on bit for bit, the gradient goes back unchanged, with the commitment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SHORT = 0.05
CHUNK = 2**18  # numbers handled at a time: they stay in the cache between the steps of a chunk


def straight_through(
    z: Tensor,
    value: Tensor,
    valid: Tensor | None,
    sse: Tensor,
    n_values: Tensor | int,
    commit_grad: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What flows on and the commitment: (`value` with the gradient of `z`, sse / n_values).

    Args:
        z: [N, d] the inputs.
        value: [N, d] what they are replaced by; a gradient that it wants, it gets as well.
        valid: [N] bool; the others pass no gradient back. None: all are.
        sse: the sum of |input - code|^2 over valid tokens (and levels).
        n_values: how many squared numbers that is.
        commit_grad: [N, d] half the gradient of `sse` by `z`; None: z - value.
    """
    term = mean_of(sse, n_values)
    if not (torch.is_grad_enabled() and (z.requires_grad or value.requires_grad)):
        return value, term
    return StraightThrough.apply(z, value, valid, term, n_values, commit_grad)


def mean_of(total: Tensor, n_values: Tensor | int) -> Tensor:
    """`total` / `n_values`, 0 of nothing."""
    return total / (n_values.clamp_min(1) if isinstance(n_values, Tensor) else max(n_values, 1))


class StraightThrough(torch.autograd.Function):
    """The custom function behind `straight_through`; x + (value - x).detach() would round."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        value: Tensor,
        valid: Tensor | None,
        term: Tensor,
        n_values: Tensor | int,
        commit_grad: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.n_values = None if isinstance(n_values, Tensor) else n_values
        kept = (None, None, commit_grad) if commit_grad is not None else (z, value, None)
        ctx.save_for_backward(*kept, valid, n_values if isinstance(n_values, Tensor) else None)
        return value.view_as(value), term.view_as(term)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor | None, by_term: Tensor | None) -> tuple[Tensor | None, ...]:
        z, value, commit_grad, valid, n_values = ctx.saved_tensors
        if by_value is not None and valid is not None:
            by_value = by_value.masked_fill(~valid[:, None], 0)
        rest = (by_value if ctx.needs_input_grad[1] else None, None, None, None, None)
        if by_term is None:
            return by_value, *rest
        weight = mean_of(2 * by_term, n_values if n_values is not None else ctx.n_values)
        gradient = torch.empty_like(z if commit_grad is None else commit_grad)
        for part in chunks(gradient):
            away = commit_grad[part] if commit_grad is not None else z[part] - value[part]
            if by_value is None:
                torch.mul(away, weight, out=gradient[part])
            else:
                torch.addcmul(by_value[part], away, weight, out=gradient[part])
        if valid is not None:
            gradient.masked_fill_(~valid[:, None], 0)
        return gradient, *rest


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
    if not (torch.is_grad_enabled() and x.requires_grad):
        return x / length.clamp_min(torch.finfo(x.dtype).tiny)
    value = x.detach() / length.detach().clamp_min(torch.finfo(x.dtype).tiny)
    return AddGradient.apply(x / length.clamp_min(SHORT), value)


def squared_distance(z: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
    """The sum of |z - value|^2 over the valid rows, without a temporary of the size of `z`; no gradient."""
    z, value = z.detach(), value.detach()
    if torch.compiler.is_compiling() or z.device.type != "cpu":
        away = z - value
        if valid is not None:
            away = away.masked_fill(~valid[:, None], 0)
        return away.square().sum()
    total = z.new_zeros(())
    for part in chunks(z):
        away = z[part] - value[part]
        if valid is not None:
            away.masked_fill_(~valid[part, None], 0)
        total += torch.dot(away.view(-1), away.view(-1))
    return total


def chunks(rows: Tensor) -> Iterator[slice]:
    """Slices of the rows of a matrix [N, d] that hold about CHUNK numbers each (all at once on an accelerator)."""
    count = rows.shape[0]
    step = max(1, CHUNK // max(1, rows.shape[1])) if rows.device.type == "cpu" else max(1, count)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
