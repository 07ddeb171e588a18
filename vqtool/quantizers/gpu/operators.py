"""The operators `vqtool::*`, so that compiled graphs hold a kernel as one node: as kernels, plain, and shapes alone."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vqtool.api.quantizer import SAMPLES, sample
from vqtool.quantizers.core import averages
from vqtool.quantizers.core.averages import look_up, totals
from vqtool.quantizers.core.search import nearest

HOME = "vqtool.quantizers.gpu"
LIBRARY = torch.library.Library("vqtool", "DEF")


def runs_kernels(x: Tensor) -> bool:
    """Whether Triton is there for the device of `x`; on a CPU it is where its interpreter is asked for."""
    interpreted = x.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return (interpreted or x.device.type == "cuda") and importlib.util.find_spec("triton") is not None


def operator(signature: str, shapes: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make an operator of a plain function: launches of the same name take its place where `runs_kernels`."""

    def register(plain: Callable[..., Any]) -> Callable[..., Any]:
        name = plain.__name__
        LIBRARY.define(name + signature)

        def call(x: Tensor, *rest: Any) -> Any:
            first = x if isinstance(x, Tensor) else rest[1]
            if runs_kernels(first):
                with torch.cuda.device(first.device) if first.is_cuda else torch.no_grad():
                    return getattr(importlib.import_module(f"{HOME}.launches"), name)(x, *rest)
            return plain(x, *rest)

        LIBRARY.impl(name, call, "CompositeExplicitAutograd")
        torch.library.register_fake(f"vqtool::{name}", shapes, lib=LIBRARY)
        return plain

    return register


def _quantized(x: Tensor, mask: Tensor | None, tables: Tensor, train: bool) -> tuple[Tensor, ...]:
    (count, dim), levels = x.shape, tables.shape[0]
    more = train and levels > 1
    whole, new = x.new_empty(count, levels, dtype=torch.long), tables.new_empty
    pull, rests = new(count if more else 0, dim), new(levels - 1 if more else 0, count, dim)
    return whole, new(count, dim), pull, rests, new(()), new(()), whole.new_empty(())


@operator("(Tensor x, Tensor? mask, Tensor tables, bool train) -> "
          "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)", _quantized)  # fmt: skip
def quantize(x: Tensor, mask: Tensor | None, tables: Tensor, train: bool) -> tuple[Tensor, ...]:
    """Tokens `x` [N, D] by `tables` [Q, K, D], each of which codes what those before left over.

    `x` may be of a narrower type, and of any strides; everything is computed as `tables` are, in float32.

    Returns: codes [N, Q], -1 for tokens that are masked or not finite; the sum of the code vectors [N, D]; where
    `train` and Q > 1 the sum of what each level left [N, D], and what each but the first was given [Q - 1, N, D] (both
    with no rows else); the mean squared error, of how many values it is (1 of none), how many tokens are not finite.
    """
    x = x.to(tables.dtype)
    finite = x.isfinite().all(1)
    real = torch.ones_like(finite) if mask is None else mask
    good = finite & real
    rest = torch.where(good[:, None], x, 0)
    total, pull, error = torch.zeros_like(x), torch.zeros_like(x), x.new_zeros(())
    codes, rests = [], []
    for table in tables:
        code = nearest(rest, table)[0]
        value = look_up(table, code, good)
        rest, total = rest - value, total + value
        pull, error = pull + rest, error + rest.square().sum()
        codes.append(code.masked_fill(~good, -1))
        rests.append(rest)
    more = train and len(tables) > 1
    values = (good.sum() * (len(tables) * x.shape[1])).clamp_min(1).to(x.dtype)
    left = torch.stack(rests[:-1]) if more else x.new_empty(0, *x.shape)
    pull = pull if more else x.new_empty(0, x.shape[1])
    return torch.stack(codes, 1), total, pull, left, error / values, values, (real & ~finite).sum()


@operator(
    "(Tensor x, Tensor? mask, Tensor table) -> Tensor", lambda x, mask, table: x.new_empty(len(x), dtype=torch.long)
)
def search(x: Tensor, mask: Tensor | None, table: Tensor) -> Tensor:
    """The nearest row of `table` [K, D] for each of `x` [N, D]; -1 for tokens that are masked or not finite."""
    code, finite = nearest(x, table)
    return code.masked_fill(~(finite if mask is None else finite & mask), -1)


def _statistics(x: Tensor, rests: Tensor, codes: Tensor, size: int, samples: bool) -> tuple[Tensor, ...]:
    (count, dim), levels = x.shape, codes.shape[1]
    many = min(count, size, SAMPLES) if samples else 0
    return rests.new_empty(levels, size), rests.new_empty(levels, size, dim), rests.new_empty(levels, many, dim)


@operator("(Tensor x, Tensor rests, Tensor codes, int size, bool samples) -> (Tensor, Tensor, Tensor)", _statistics)
def statistics(x: Tensor, rests: Tensor, codes: Tensor, size: int, samples: bool) -> tuple[Tensor, ...]:
    """Counts [Q, K], sums [Q, K, D] and, if wanted, `sample` [Q, S, D] of what each level was given.

    That is `x` [N, D] for the first and `rests` [Q - 1, N, D] for the others; `codes` [N, Q], -1 for none.
    """
    x = x.to(rests.dtype)
    each = [
        (*totals(given, code.clamp_min(0), code >= 0, size), sample(given, size, code >= 0)[: None if samples else 0])
        for given, code in zip([x, *rests], codes.unbind(1), strict=True)
    ]
    counts, sums, rows = (torch.stack(part) for part in zip(*each, strict=True))
    return counts, sums, rows


@operator("(Tensor? upstream, Tensor? by_mean, Tensor x, Tensor value, Tensor pull, Tensor codes, Tensor values) "
          "-> Tensor", lambda upstream, by_mean, x, value, *rest: torch.empty_like(value))  # fmt: skip
def pass_back(
    upstream: Tensor | None, by_mean: Tensor | None, x: Tensor, value: Tensor, pull: Tensor, codes: Tensor,
    values: Tensor,
) -> Tensor:  # fmt: skip
    """The gradient [N, D] by tokens: that of the value passes unchanged, that of the mean squared error is added."""
    out = torch.zeros_like(value) if upstream is None else upstream
    if by_mean is not None:
        out = out + (x - value if codes.shape[1] == 1 else pull) * (2 * by_mean / values)
    return torch.where(codes[:, :1] >= 0, out, 0)


@operator("(Tensor(a!) codes, Tensor(b!) weights, Tensor counts, Tensor sums, Tensor samples, float decay, "
          "float below) -> ()", lambda *rest: None)  # fmt: skip
def follow(
    codes: Tensor, weights: Tensor, counts: Tensor, sums: Tensor, samples: Tensor, decay: float, below: float
) -> None:
    """`core/averages.py: follow`."""
    averages.follow(codes, weights, counts, sums, samples, decay, below)
