"""Triton kernels of codes drawn by logits with Gumbel noise, see `quantizers/gumbel.py`; noise is a hash, as there."""

from typing import Any

import triton.language as tl

from vqtool.quantizers.gpu.codes import mixed, multipliers
from vqtool.quantizers.gpu.kernels import constexpr, jit, tokens


@jit
def content(x_ptr: "Any", ROW: "Any", COLUMN: "Any", rows: "Any", here: "Any", D: constexpr) -> "Any":
    """`vqtool/api/quantizer.py: content_keys` of the `rows` [n] that are `here` [n]; others are hashed as zeros."""
    j = tl.arange(0, 4) * ((D + 3) // 4)
    x = tokens(x_ptr, ROW, COLUMN, rows, j, here[:, None] & (j < D)[None, :])
    return mixed(x.to(tl.int32, bitcast=True).to(tl.int64), multipliers())


@jit
def gumbel(
    x_ptr: "Any", ROW: "Any", COLUMN: "Any", weight_ptr: "Any", n: "Any", k: "Any", group: "Any", LENGTH: "Any",
    N: "Any", K: "Any", GROUPS: constexpr, D: constexpr, INPUTS: constexpr,
) -> "Any":  # fmt: skip
    """`core/draw.py: gumbel` of the tokens `n` [m] and the codes `k` [j] of a group, by `noise_keys`, `column_keys`."""
    first = tl.arange(0, 8)
    some = first < GROUPS * K
    state = tl.sum(tl.where(some, content(weight_ptr, INPUTS, 1, first, some, INPUTS), 0), axis=0)
    keys = content(x_ptr, ROW, COLUMN, n, n < N, D) ^ ((n % LENGTH).to(tl.int64) * 0x1E3779B97F4A7C15)
    keys = keys + state
    keys = (keys ^ (keys >> 31)) * 0x3F58476D1CE4E5B9
    columns = ((group * K + k).to(tl.int64) + 1) * 0x1E3779B97F4A7C15
    columns = (columns ^ (columns >> 30)) * 0x3F58476D1CE4E5B9
    bits = (keys ^ (keys >> 29)).to(tl.int32)[:, None] ^ (columns ^ (columns >> 27)).to(tl.int32)[None, :]
    bits = bits * -0x7A143589
    bits = (bits ^ (bits >> 15)) * -0x3D4D51C3
    uniform = bits.to(tl.float32) * (2.3283064365386963e-10 * (1 - 9.5367431640625e-07)) + 0.5
    return tl.log(-tl.log(uniform))


@jit
def log_sum(logits: "Any") -> "Any":
    """log sum exp [n] of `logits` [n, m], -inf where there is no code."""
    most = tl.max(logits, axis=1)
    return most + tl.log(tl.sum(tl.exp(logits - most[:, None]), axis=1))


@jit
def choose(
    logit_ptr: "Any", x_ptr: "Any", ROW: "Any", COLUMN: "Any", weight_ptr: "Any", vector_ptr: "Any", valid_ptr: "Any",
    value_ptr: "Any", code_ptr: "Any", use_ptr: "Any", sum_ptr: "Any", LENGTH: "Any", temperature: "Any",
    N: "Any", K: "Any", RUN: "Any",
    GROUPS: constexpr, D: constexpr, INPUTS: constexpr, WIDTH: constexpr, WP: constexpr, KP: constexpr,
    BLOCK_N: constexpr, MASKED: constexpr, NOISY: constexpr,
) -> None:  # fmt: skip
    """Codes, their vectors, the sums of plain softmaxes by program and the two normalisers; a program takes RUN tokens.

    Everything that is done with a token's logits is done in one look at them.
    """
    program, group = tl.program_id(0), tl.program_id(1)
    k, w = tl.arange(0, KP), tl.arange(0, WP)
    use = tl.zeros((KP,), tl.float32)
    for first in range(program * RUN, tl.minimum(N, (program + 1) * RUN), BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        inside = n < N
        valid = inside
        if MASKED:
            valid = inside & (tl.load(valid_ptr + n, mask=inside, other=0) != 0)
        rows = n.to(tl.int64) * GROUPS + group
        here = inside[:, None] & (k < K)[None, :]
        logits = tl.load(logit_ptr + rows[:, None] * K + k[None, :], mask=here, other=0.0)
        logits = tl.where((k < K)[None, :], logits, float("-inf"))
        plain = log_sum(logits)
        use += tl.sum(tl.where(valid[:, None], tl.exp(logits - plain[:, None]), 0.0), axis=0)
        if NOISY:
            logits = logits - gumbel(x_ptr, ROW, COLUMN, weight_ptr, n, k, group, LENGTH, N, K, GROUPS, D, INPUTS)
        most = tl.max(logits, axis=1)
        code = tl.min(tl.where(logits == most[:, None], k[None, :], KP), axis=1)
        tl.store(code_ptr + rows, tl.where(valid, code, -1).to(tl.int64), mask=inside)
        tl.store(sum_ptr + 2 * rows, plain, mask=inside)
        tl.store(sum_ptr + 2 * rows + 1, log_sum(logits / temperature), mask=inside)
        at = (group * K + code)[:, None].to(tl.int64) * WIDTH + w[None, :]
        value = tl.load(vector_ptr + at, mask=valid[:, None] & (w < WIDTH)[None, :], other=0.0)
        tl.store(value_ptr + rows[:, None] * WIDTH + w[None, :], value, mask=inside[:, None] & (w < WIDTH)[None, :])
    tl.store(use_ptr + (program * GROUPS + group) * K + k, use, mask=k < K)


@jit
def choose_back(
    by_choice_ptr: "Any", by_use_ptr: "Any", logit_ptr: "Any", sum_ptr: "Any", x_ptr: "Any", ROW: "Any", COLUMN: "Any",
    weight_ptr: "Any", valid_ptr: "Any", out_ptr: "Any", LENGTH: "Any", temperature: "Any", N: "Any", K: "Any",
    GROUPS: constexpr, D: constexpr, INPUTS: constexpr, KP: constexpr, BLOCK_N: constexpr,
    MASKED: constexpr, NOISY: constexpr,
) -> None:  # fmt: skip
    """The gradient by the logits, from that by each choice through the noisy softmax, and that by the mean use."""
    n, k, group = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, KP), tl.program_id(1)
    inside = n < N
    valid = inside
    if MASKED:
        valid = inside & (tl.load(valid_ptr + n, mask=inside, other=0) != 0)
    rows = n.to(tl.int64) * GROUPS + group
    at, here = rows[:, None] * K + k[None, :], inside[:, None] & (k < K)[None, :]
    logits = tl.where((k < K)[None, :], tl.load(logit_ptr + at, mask=here, other=0.0), float("-inf"))
    plain = tl.exp(logits - tl.load(sum_ptr + 2 * rows, mask=inside, other=0.0)[:, None])
    by_use = plain * tl.load(by_use_ptr + group * K + k, mask=k < K, other=0.0)[None, :]
    by_use = tl.where(valid[:, None], by_use - plain * tl.sum(by_use, axis=1)[:, None], 0.0)
    if NOISY:
        logits = logits - gumbel(x_ptr, ROW, COLUMN, weight_ptr, n, k, group, LENGTH, N, K, GROUPS, D, INPUTS)
    noisy = tl.exp(logits / temperature - tl.load(sum_ptr + 2 * rows + 1, mask=inside, other=0.0)[:, None])
    by_at = (group * tl.cast(N, tl.int64) + n[:, None]) * K + k[None, :]
    by_choice = noisy * tl.load(by_choice_ptr + by_at, mask=here, other=0.0)
    by_choice = by_choice - noisy * tl.sum(by_choice, axis=1)[:, None]
    tl.store(out_ptr + at, by_choice / temperature + by_use, mask=here)
