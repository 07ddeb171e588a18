"""Straight-through: the code vectors flow on bit for bit, the gradient goes back unchanged, with the commitment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**18  # numbers handled at a time: they stay in the cache between the steps of a chunk


def pass_on(
    z: Tensor,
    value: Tensor,
    valid: Tensor | None,
    squares: Tensor,
    pairs: Tensor | int,
    pull: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What flows on and the commitment term: (`value` with the gradient of `z`, squares / pairs).

    Args:
        z: [N, d] the inputs.
        value: [N, d] what they are replaced by; no gradient reaches it.
        valid: [N] bool; the others pass no gradient back. None: all are.
        squares: the sum of |input - code|^2 over valid tokens (and levels).
        pairs: how many squared numbers that is.
        pull: [N, d] half the gradient of `squares` by `z`; None: z - value.
    """
    term = squares / (pairs.clamp_min(1) if isinstance(pairs, Tensor) else max(pairs, 1))
    if not (torch.is_grad_enabled() and z.requires_grad):
        return value, term
    return PassOn.apply(z, value, valid, term, pairs, pull)


class PassOn(torch.autograd.Function):
    """The custom function behind `pass_on`; x + (value - x).detach() would round."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, value: Tensor, valid: Tensor | None, term: Tensor, pairs: Tensor | int, pull: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.pairs = None if isinstance(pairs, Tensor) else pairs
        kept = (None, None, pull) if pull is not None else (z, value, None)
        ctx.save_for_backward(*kept, valid, pairs if isinstance(pairs, Tensor) else None)
        return value.view_as(value), term.view_as(term)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor | None, by_term: Tensor | None) -> tuple[Tensor | None, ...]:
        z, value, pull, valid, pairs = ctx.saved_tensors
        nothing = (None,) * 5
        if by_term is None:
            if by_value is None or valid is None:
                return (by_value, *nothing)
            return (by_value.masked_fill(~valid[:, None], 0), *nothing)
        weight = 2 * by_term / (pairs.clamp_min(1) if pairs is not None else max(ctx.pairs, 1))
        gradient = torch.empty_like(z if pull is None else pull)
        for part in chunks(gradient):
            away = pull[part] if pull is not None else z[part] - value[part]
            if by_value is None:
                torch.mul(away, weight, out=gradient[part])
            else:
                torch.addcmul(by_value[part], away, weight, out=gradient[part])
        if valid is not None:
            gradient.masked_fill_(~valid[:, None], 0)
        return (gradient, *nothing)


class Carry(torch.autograd.Function):
    """The value of `value`, bit for bit, and its gradient to both of them: `carrier` and `value`."""

    @staticmethod
    def forward(ctx: Any, carrier: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor) -> tuple[Tensor, Tensor]:
        return by_value, by_value


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
