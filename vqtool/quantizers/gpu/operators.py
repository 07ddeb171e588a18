"""The operators `vqtool::*`, so that compiled graphs hold a kernel as one node: as kernels, plain, and shapes alone.

The plain ones are few, large operations: on accelerators without Triton they make the pass.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vqtool.api.quantizer import SAMPLES, bits_of, order_of
from vqtool.quantizers.core import averages
from vqtool.quantizers.core.draw import column_keys, gumbel, noise_keys
from vqtool.quantizers.core.search import closest, nearest, prepared

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
            first = x[0] if isinstance(x, list) else rest[1] if x is None else x
            if runs_kernels(first):
                x, rest = reachable(x), tuple(map(reachable, rest))
                with torch.cuda.device(first.device) if first.is_cuda else torch.no_grad():
                    return getattr(importlib.import_module(f"{HOME}.launches"), name)(x, *rest)
            return plain(x, *rest)

        LIBRARY.impl(name, call, "CompositeExplicitAutograd")
        torch.library.register_fake(f"vqtool::{name}", shapes, lib=LIBRARY)
        return plain

    return register


def reachable(x: Any) -> Any:
    """A tensor whose features lie within the 32 bits in which kernels count their places: any but some transposed."""
    far = isinstance(x, Tensor) and x.dim() == 2 and x.shape[1] * x.stride(1) >= 2**31
    return x.contiguous() if far else x


def _quantized(x: Tensor, mask: Tensor | None, tables: Tensor, groups: int, train: bool) -> tuple[Tensor, ...]:
    (count, width), books = x.shape, tables.shape[0]
    more = train and books > groups
    whole, new = x.new_empty(count, books, dtype=torch.long), tables.new_empty
    pull, rests = new(count if more else 0, width), new(books // groups - 1 if more else 0, count, width)
    return whole, new(count, width), pull, rests, new(()), new(()), whole.new_empty(())


@operator("(Tensor x, Tensor? mask, Tensor tables, int groups, bool train) -> "
          "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)", _quantized)  # fmt: skip
def quantize(x: Tensor, mask: Tensor | None, tables: Tensor, groups: int, train: bool) -> tuple[Tensor, ...]:
    """Tokens `x` [N, W] by `tables` [B, K, D], those of a group after one another; W = groups x D, B = groups x Q.

    A group has D features of its own and Q levels, each of which codes what those before left over. `x` may be of a
    narrower type, and of any strides; everything is computed as `tables` are, in float32.

    Returns: codes [N, B], -1 for tokens that are masked or not finite; the sums of the code vectors [N, W]; where
    `train` and Q > 1 the sum of what each level left [N, W], and what each but the first was given [Q - 1, N, W] (both
    with no rows else); the mean squared error, of how many values it is (1 of none), how many tokens are not finite.
    """
    (count, width), (books, size, dim) = x.shape, tables.shape
    levels, x = books // groups, x.to(tables.dtype)
    unfit = (x * 0).sum(1) != 0  # NaN where a number is not finite
    away = unfit if mask is None else unfit | ~mask
    rest = x.masked_fill(away[:, None], 0).view(count, groups, dim).transpose(0, 1)
    centre, weight = prepared(tables)
    known = F.pad(tables, (0, 0, 0, 1))  # a vector of zeros for those without a code
    codes, values, rests = [], [], []
    for level in range(levels):
        book = slice(level, None, levels)  # of each group
        code = closest(rest, centre[book], weight[book])[0].masked_fill(away, size)
        values.append(known[book].gather(1, code[..., None].expand(-1, -1, dim)))
        rest = rest - values[-1]
        codes.append(code)
        rests.append(rest.transpose(0, 1))
    error = torch.stack([torch.linalg.vector_norm(left) for left in rests]).square().sum()
    n_values = ((count - away.sum()) * (levels * width)).clamp_min(1).to(x.dtype)
    whole = torch.stack(codes, 2).transpose(0, 1).reshape(count, books)
    total = functools.reduce(torch.add, values).transpose(0, 1).reshape(count, width)
    more = train and levels > 1
    left = torch.stack(rests if more else []).view(-1, count, width) if more else x.new_empty(0, count, width)
    pull = left.sum(0) if more else x.new_empty(0, width)
    not_finite = (unfit if mask is None else unfit & mask).sum()
    return whole.masked_fill(away[:, None], -1), total, pull, left[:-1], error / n_values, n_values, not_finite


@operator(
    "(Tensor x, Tensor? mask, Tensor table) -> Tensor", lambda x, mask, table: x.new_empty(len(x), dtype=torch.long)
)
def search(x: Tensor, mask: Tensor | None, table: Tensor) -> Tensor:
    """The nearest row of `table` [K, D] for each of `x` [N, D]; -1 for tokens that are masked or not finite."""
    code, finite = nearest(x, table)
    return code.masked_fill(~(finite if mask is None else finite & mask), -1)


def _statistics(x: Tensor, rests: Tensor, codes: Tensor, groups: int, size: int, samples: bool) -> tuple[Tensor, ...]:
    (count, width), books = x.shape, codes.shape[1]
    many, new = min(count, size, SAMPLES) if samples else 0, rests.new_empty
    return new(books, size), new(books, size, width // groups), new(books, many, width // groups)


@operator("(Tensor x, Tensor rests, Tensor codes, int groups, int size, bool samples) -> (Tensor, Tensor, Tensor)",
          _statistics)  # fmt: skip
def statistics(
    x: Tensor, rests: Tensor, codes: Tensor, groups: int, size: int, samples: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts [B, K], sums [B, K, D] and, if wanted, `sample` [B, S, D] of what each codebook was given.

    That is `x` [N, W] for the first levels and `rests` [Q - 1, N, W] for the others; `codes` [N, B], -1 for none.
    """
    (count, width), books = x.shape, codes.shape[1]
    levels, dim = books // groups, width // groups
    by_level = [x.to(rests.dtype).view(1, count, groups, dim)]
    if levels > 1:
        by_level.append(rests.view(levels - 1, count, groups, dim))
    codes = codes.view(count, groups, levels).permute(2, 0, 1)  # [Q, N, G]
    first = torch.arange(books, device=x.device).view(groups, levels).t()[:, None] * size  # [Q, 1, G]
    rows = torch.where(codes < 0, books * size, codes + first)  # those without a code in a row that is cut off
    counts = x.new_zeros(books * size + 1, dtype=rests.dtype)
    counts.index_add_(0, rows.flatten(), counts.new_ones(()).expand(rows.numel()))
    sums = counts.new_zeros(books * size + 1, dim)
    for some, at in zip(by_level, (rows[:1], rows[1:]), strict=False):
        sums.index_add_(0, at.flatten(), some.reshape(-1, dim))
    counts, sums = counts[:-1].view(books, size), sums[:-1].view(books, size, dim)
    if not samples:
        return counts, sums, sums[:, :0]
    keys = order_of(torch.cat([bits_of(some) for some in by_level])).masked_fill(codes < 0, torch.iinfo(torch.long).max)
    chosen = keys.topk(min(count, size, SAMPLES), 1, largest=False, sorted=True).indices  # [Q, S, G]
    places = [part[..., None].expand(-1, -1, -1, dim) for part in (chosen[:1], chosen[1:])]
    taken = torch.cat([some.gather(1, at) for some, at in zip(by_level, places, strict=False)])
    taken = taken.masked_fill((codes.gather(1, chosen) < 0)[..., None], torch.nan)
    return counts, sums, taken.permute(2, 0, 1, 3).flatten(0, 1)


@operator("(Tensor? upstream, Tensor? by_mean, Tensor x, Tensor value, Tensor pull, Tensor codes, Tensor values) "
          "-> Tensor", lambda upstream, by_mean, x, value, *rest: torch.empty_like(value))  # fmt: skip
def pass_back(
    upstream: Tensor | None, by_mean: Tensor | None, x: Tensor, value: Tensor, pull: Tensor, codes: Tensor,
    values: Tensor,
) -> Tensor:  # fmt: skip
    """The gradient [N, W] by tokens: that of the value passes unchanged, that of the mean squared error is added."""
    out = torch.zeros_like(value) if upstream is None else upstream
    if by_mean is not None:
        out = torch.addcmul(out, pull if len(pull) else x - value, 2 * by_mean / values)
    return out.masked_fill(codes[:, :1] < 0, 0)


@operator("(Tensor(a!)[] codes, Tensor(b!)[] weights, Tensor[] counts, Tensor[] sums, Tensor[] samples, float decay, "
          "float below) -> ()", lambda *rest: None)  # fmt: skip
def follow(
    codes: Sequence[Tensor], weights: Sequence[Tensor], counts: Sequence[Tensor], sums: Sequence[Tensor],
    samples: Sequence[Tensor], decay: float, below: float,
) -> None:  # fmt: skip
    """`core/averages.py: follow` of codebooks that are alike, in place."""
    together(averages.follow, codes, weights, counts, sums, samples, decay, below)


def together(
    move: Callable[..., None], codes: Sequence[Tensor], weights: Sequence[Tensor], counts: Sequence[Tensor],
    sums: Sequence[Tensor], samples: Sequence[Tensor], decay: float, below: float,
) -> None:  # fmt: skip
    """Have codebooks that lie apart moved as one stack."""
    given = (codes, weights, counts, sums, samples)
    stacks = [part[0][None] if len(codes) == 1 else torch.stack(list(part)) for part in given]
    move(*stacks, decay, below)
    if len(codes) > 1:
        torch._foreach_copy_([*codes, *weights], [*stacks[0], *stacks[1]])


def _chosen(logits: Tensor, tokens: Tensor, weight: Tensor, vectors: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    (groups, size, width), count, new = vectors.shape, logits.shape[0], logits.new_empty
    return (new(count, groups * width), new(count, groups, dtype=torch.long), new(groups, size), new(count, groups, 2))


@operator("(Tensor logits, Tensor tokens, Tensor weight, Tensor vectors, Tensor? valid, int length, float temperature, "
          "bool noisy) -> (Tensor, Tensor, Tensor, Tensor)", _chosen)  # fmt: skip
def choose(
    logits: Tensor, tokens: Tensor, weight: Tensor, vectors: Tensor, valid: Tensor | None, length: int,
    temperature: float, noisy: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """`quantizers/gumbel.py: choose` by `logits` [N, G * K], with noise of `tokens` [N, D] in windows of a `length`.

    Returns: value [N, G * d], codes [N, G], usage [G, K]; log sum exp of the logits, plain and as drawn, [N, G, 2].
    """
    (groups, size, width), count = vectors.shape, len(logits)
    plain = logits.view(count, groups, size)
    drawn = plain - drawn_noise(tokens, weight, length, plain) if noisy else plain
    use = plain.softmax(2) if valid is None else plain.softmax(2).masked_fill(~valid[:, None, None], 0)
    usage = use.sum(0) / (count if valid is None else valid.sum().clamp_min(1))
    codes = drawn.argmax(2)
    value = vectors.gather(1, codes.t()[..., None].expand(-1, -1, width)).transpose(0, 1).flatten(1)
    if valid is not None:
        value, codes = value.masked_fill(~valid[:, None], 0), codes.masked_fill(~valid[:, None], -1)
    return value, codes, usage, torch.stack([plain.logsumexp(2), (drawn / temperature).logsumexp(2)], 2)


@operator("(Tensor by_choice, Tensor by_usage, Tensor logits, Tensor sums, Tensor tokens, Tensor weight, "
          "Tensor? valid, int length, float temperature, bool noisy) -> Tensor",
          lambda by_choice, by_usage, logits, *rest: torch.empty_like(logits))  # fmt: skip
def choose_back(
    by_choice: Tensor, by_usage: Tensor, logits: Tensor, sums: Tensor, tokens: Tensor, weight: Tensor,
    valid: Tensor | None, length: int, temperature: float, noisy: bool,
) -> Tensor:  # fmt: skip
    """The gradient by `logits` [N, G * K] from that by each choice [G, N, K], and by the sums behind `usage` [G, K]."""
    by_choice = by_choice.transpose(0, 1)
    plain = logits.view(by_choice.shape)
    drawn = plain - drawn_noise(tokens, weight, length, plain) if noisy else plain
    each = [(plain - sums[..., :1]).exp(), (drawn / temperature - sums[..., 1:]).exp()]
    by_plain, by_drawn = (
        probs * (by - (probs * by).sum(2, keepdim=True)) for probs, by in zip(each, (by_usage, by_choice), strict=True)
    )
    by_plain = by_plain if valid is None else by_plain.masked_fill(~valid[:, None, None], 0)
    return (by_drawn / temperature + by_plain).view_as(logits)


def drawn_noise(tokens: Tensor, weight: Tensor, length: int, logits: Tensor) -> Tensor:
    """The noise [N, G, K] that is taken from `logits`."""
    keys = noise_keys(tokens.view(-1, length, tokens.shape[1]), weight)
    return gumbel(keys, column_keys(logits[0].numel(), logits.device)).view_as(logits)
