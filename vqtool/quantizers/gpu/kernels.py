"""Triton kernels of codebook quantizers; imported only where Triton is, and launched by `launches.py`.

All sums are taken in a fixed order and none by atomics, so that two runs give the same bits. `*_ptr` are contiguous
tensors of float32; codes, keys and indices are int64. N tokens, LEVELS codebooks of K codes, D features; tiles are DP
wide, the power of two that holds D.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

if TYPE_CHECKING:
    constexpr = Any
else:  # Triton looks the other annotations up unless they are strings
    constexpr = tl.constexpr


def jit(kernel: Callable[..., Any]) -> Any:
    """`triton.jit`, whose types are there only where it is installed."""
    return triton.jit(kernel)


@jit
def prepare(
    table_ptr: "Any", near_ptr: "Any", half_ptr: "Any", centre_ptr: "Any", scale_ptr: "Any", K: "Any",
    D: constexpr, DP: constexpr, BLOCK_K: constexpr,
) -> None:  # fmt: skip
    """Codes relative to a robust centre and scaled by a power of two, and half their squares; a program a level.

    The formulas are those of `core/search.py: robust_centre, prepared`.
    """
    level = tl.program_id(0)
    lanes, d = tl.arange(0, BLOCK_K), tl.arange(0, DP)
    wide = d < D
    total = tl.zeros((BLOCK_K, DP), tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + lanes
        at = (level * K + k)[:, None].to(tl.int64) * D + d[None, :]
        total += tl.load(table_ptr + at, mask=(k < K)[:, None] & wide[None, :], other=0.0)
    mean = tl.sum(total, axis=0) / K
    farthest = tl.zeros((BLOCK_K, DP), tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + lanes
        here = (k < K)[:, None] & wide[None, :]
        e = tl.load(table_ptr + (level * K + k)[:, None].to(tl.int64) * D + d[None, :], mask=here, other=0.0)
        farthest = tl.maximum(farthest, tl.where(here, tl.abs(e - mean[None, :]), 0.0))
    largest = tl.maximum(tl.max(tl.max(farthest, axis=1), axis=0), 1.1754943508222875e-38)
    total = tl.zeros((BLOCK_K, DP), tl.float32)
    weights = tl.zeros((BLOCK_K,), tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + lanes
        here = (k < K)[:, None] & wide[None, :]
        e = tl.load(table_ptr + (level * K + k)[:, None].to(tl.int64) * D + d[None, :], mask=here, other=0.0)
        away = tl.where(here, e - mean[None, :], 0.0)
        ratio = away / largest
        weight = tl.where(k < K, 1.0 / (tl.sum(ratio * ratio, axis=1) + 1e-12), 0.0)
        weights += weight
        total += away * weight[:, None]
    centre = mean + tl.sum(total, axis=0) / tl.sum(weights, axis=0)
    tl.store(centre_ptr + level * D + d, centre, mask=wide)
    farthest = tl.zeros((BLOCK_K, DP), tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + lanes
        here = (k < K)[:, None] & wide[None, :]
        e = tl.load(table_ptr + (level * K + k)[:, None].to(tl.int64) * D + d[None, :], mask=here, other=0.0)
        farthest = tl.maximum(farthest, tl.where(here, tl.abs(e - centre[None, :]), 0.0))
    largest = tl.maximum(tl.max(tl.max(farthest, axis=1), axis=0), 1.1754943508222875e-38)
    exponent = (largest.to(tl.int32, bitcast=True) >> 23) - 126  # floor of the binary logarithm, and one
    exponent = tl.minimum(tl.maximum(-exponent, -120), 120)
    scale = ((exponent + 127) << 23).to(tl.float32, bitcast=True)
    tl.store(scale_ptr + level, scale)
    for first in range(0, K, BLOCK_K):
        k = first + lanes
        here = (k < K)[:, None] & wide[None, :]
        at = (level * K + k)[:, None].to(tl.int64) * D + d[None, :]
        e = (tl.load(table_ptr + at, mask=here, other=0.0) - centre[None, :]) * scale
        tl.store(near_ptr + at, e, mask=here)
        tl.store(half_ptr + level * K + k, tl.sum(tl.where(here, e * e, 0.0), axis=1) * 0.5, mask=k < K)


@jit
def nearest(
    x: "Any", near_ptr: "Any", half_ptr: "Any", level: "Any", K: "Any",
    D: constexpr, DP: constexpr, BLOCK_N: constexpr, BLOCK_K: constexpr, PRECISION: constexpr,
) -> "Any":  # fmt: skip
    """The nearest code [BLOCK_N] of rows `x` that are centred and scaled as the codes are; the lowest of equals.

    The minimum is kept lane by lane over tiles; one reduction across lanes at the end takes the lowest index.
    """
    d, lanes = tl.arange(0, DP), tl.arange(0, BLOCK_K)
    best = tl.full((BLOCK_N, BLOCK_K), float("inf"), tl.float32)
    which = tl.zeros((BLOCK_N, BLOCK_K), tl.int32)
    for first in range(0, K, BLOCK_K):
        k = first + lanes
        at = (level * K + k)[None, :].to(tl.int64) * D + d[:, None]
        e = tl.load(near_ptr + at, mask=(k < K)[None, :] & (d < D)[:, None], other=0.0)
        half = tl.load(half_ptr + level * K + k, mask=k < K, other=float("inf"))
        score = half[None, :] - tl.dot(x, e, input_precision=PRECISION)
        better = score < best  # strictly: an earlier tile keeps a tie
        best = tl.where(better, score, best)
        which = tl.where(better, k[None, :], which)
    least = tl.min(best, axis=1)
    return tl.min(tl.where(best == least[:, None], which, 2147483647), axis=1)


@jit
def quantize(
    x_ptr: "Any", mask_ptr: "Any", table_ptr: "Any", near_ptr: "Any", half_ptr: "Any",
    centre_ptr: "Any", scale_ptr: "Any",
    code_ptr: "Any", value_ptr: "Any", pull_ptr: "Any", rest_ptr: "Any", error_ptr: "Any",
    count_ptr: "Any", N: "Any", K: "Any",
    LEVELS: constexpr, D: constexpr, DP: constexpr, BLOCK_N: constexpr, BLOCK_K: constexpr,
    MASKED: constexpr, VALUE: constexpr, TRAIN: constexpr, PRECISION: constexpr,
) -> None:  # fmt: skip
    """Codes of all levels, what flows on, the squared error, and which tokens count: one launch, one pass over `x`.

    Where TRAIN, also what each level but the first was given [LEVELS - 1, N, D] and the sum of what each left over.
    """
    program = tl.program_id(0)
    rows = program * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, DP)
    inside = rows < N
    here = inside[:, None] & (d < D)[None, :]
    at = rows[:, None].to(tl.int64) * D + d[None, :]
    x = tl.load(x_ptr + at, mask=here, other=0.0)
    finite = tl.min((tl.abs(x) <= 3.4028234663852886e38).to(tl.int32), axis=1) > 0  # NaN compares as false
    real = inside
    if MASKED:
        real = inside & (tl.load(mask_ptr + rows, mask=inside, other=0) != 0)
    good = real & finite
    rest = tl.where(good[:, None], x, 0.0)  # nothing of another row goes any further
    counts = here & good[:, None]
    total = tl.zeros((BLOCK_N, DP), tl.float32)
    pull = tl.zeros((BLOCK_N, DP), tl.float32)
    for level in range(LEVELS):
        centre = tl.load(centre_ptr + level * D + d, mask=d < D, other=0.0)
        scaled = (rest - centre[None, :]) * tl.load(scale_ptr + level)
        code = nearest(scaled, near_ptr, half_ptr, level, K, D, DP, BLOCK_N, BLOCK_K, PRECISION)
        tl.store(code_ptr + rows.to(tl.int64) * LEVELS + level, tl.where(good, code, -1).to(tl.int64), mask=inside)
        if VALUE:
            taken = (level * K + code)[:, None].to(tl.int64) * D + d[None, :]
            value = tl.load(table_ptr + taken, mask=counts, other=0.0)
            rest = rest - value
            total = total + value
            part = tl.sum(tl.sum(rest * rest, axis=1), axis=0)
            tl.store(error_ptr + level * tl.num_programs(0) + program, part)
            if TRAIN and LEVELS > 1:
                pull = pull + rest
                if level + 1 < LEVELS:
                    tl.store(rest_ptr + level * tl.cast(N, tl.int64) * D + at, rest, mask=here)
    if VALUE:
        tl.store(value_ptr + at, total, mask=here)
        tl.store(count_ptr + 2 * program, tl.sum(good.to(tl.int32), axis=0))
        tl.store(count_ptr + 2 * program + 1, tl.sum((real & (finite == 0)).to(tl.int32), axis=0))
        if TRAIN and LEVELS > 1:
            tl.store(pull_ptr + at, pull, mask=here)


@jit
def conclude(
    error_ptr: "Any", count_ptr: "Any", mean_ptr: "Any", values_ptr: "Any", bad_ptr: "Any", PROGRAMS: "Any",
    LEVELS: constexpr, D: constexpr, BLOCK: constexpr,
) -> None:  # fmt: skip
    """The mean squared error, of how many values it is (1 of none), and how many tokens were not finite."""
    lanes = tl.arange(0, BLOCK)
    errors = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, LEVELS * PROGRAMS, BLOCK):
        errors += tl.load(error_ptr + first + lanes, mask=first + lanes < LEVELS * PROGRAMS, other=0.0)
    good = tl.zeros((BLOCK,), tl.int64)
    bad = tl.zeros((BLOCK,), tl.int64)
    for first in range(0, PROGRAMS, BLOCK):
        at = first + lanes
        good += tl.load(count_ptr + 2 * at, mask=at < PROGRAMS, other=0).to(tl.int64)
        bad += tl.load(count_ptr + 2 * at + 1, mask=at < PROGRAMS, other=0).to(tl.int64)
    values = tl.maximum(tl.sum(good, axis=0) * (LEVELS * D), 1).to(tl.float32)
    tl.store(mean_ptr, tl.sum(errors, axis=0) / values)
    tl.store(values_ptr, values)
    tl.store(bad_ptr, tl.sum(bad, axis=0))


@jit
def given(
    x_ptr: "Any", rest_ptr: "Any", level: "Any", rows: "Any", d: "Any", here: "Any", N: "Any", D: constexpr
) -> "Any":
    """What a level was given, for `rows` [n] and features `d` [m], where `here` [n, m]: 0 elsewhere."""
    at = rows[:, None].to(tl.int64) * D + d[None, :]
    if level == 0:
        found = tl.load(x_ptr + at, mask=here, other=0.0)
    else:
        found = tl.load(rest_ptr + (level - 1) * tl.cast(N, tl.int64) * D + at, mask=here, other=0.0)
    return found


@jit
def code_sums(
    x_ptr: "Any", rest_ptr: "Any", code_ptr: "Any", sum_ptr: "Any", count_ptr: "Any", N: "Any", K: "Any",
    LEVELS: constexpr, D: constexpr, DP: constexpr, BLOCK_N: constexpr, BLOCK_K: constexpr, SPLITS: constexpr,
    SLABS: constexpr, PRECISION: constexpr,
) -> None:  # fmt: skip
    """Counts and sums of tokens by code, of a part of the tokens each: sums [SPLITS, LEVELS, K, D].

    A product with codes in one column each, which are 0 and 1 and so exact; the order is fixed.
    """
    k = (tl.program_id(0) // SLABS) * BLOCK_K + tl.arange(0, BLOCK_K)
    slab = tl.program_id(0) % SLABS
    split, level = tl.program_id(1), tl.program_id(2)
    d = slab * DP + tl.arange(0, DP)
    total = tl.zeros((BLOCK_K, DP), tl.float32)
    count = tl.zeros((BLOCK_K,), tl.float32)
    span = tl.cdiv(N, SPLITS * BLOCK_N) * BLOCK_N
    for first in range(split * span, tl.minimum(N, (split + 1) * span), BLOCK_N):
        rows = first + tl.arange(0, BLOCK_N)
        code = tl.load(code_ptr + rows.to(tl.int64) * LEVELS + level, mask=rows < N, other=-1).to(tl.int32)
        x = given(x_ptr, rest_ptr, level, rows, d, (code >= 0)[:, None] & (d < D)[None, :], N, D)
        hit = (k[:, None] == code[None, :]).to(tl.float32)
        total += tl.dot(hit, x, input_precision=PRECISION)
        count += tl.sum(hit, axis=1)
    at = (split * LEVELS + level) * K + k
    tl.store(sum_ptr + at[:, None].to(tl.int64) * D + d[None, :], total, mask=(k < K)[:, None] & (d < D)[None, :])
    if slab == 0:
        tl.store(count_ptr + at, count, mask=k < K)


@jit
def mixed(numbers: "Any", odd: "Any") -> "Any":
    """`vqtool/api/quantizer.py: mixed` of whole numbers [n, 4]."""
    keys = tl.sum(numbers * odd, axis=1)
    keys = (keys ^ (keys >> 29)) * 0x3F58476D1CE4E5B9
    return (keys ^ (keys >> 32)) & 0x3FFFFFFFFFFFFFFF


@jit
def order_keys(
    x_ptr: "Any", rest_ptr: "Any", code_ptr: "Any", key_ptr: "Any", N: "Any",
    LEVELS: constexpr, D: constexpr, BLOCK_N: constexpr, STEP: constexpr, ROUNDED: constexpr,
) -> None:  # fmt: skip
    """`vqtool/api/quantizer.py: order_keys` of what each level was given [LEVELS, N]; the largest for no code."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    level = tl.program_id(1)
    j = tl.arange(0, 4)
    code = tl.load(code_ptr + rows.to(tl.int64) * LEVELS + level, mask=rows < N, other=-1)
    real = (code >= 0)[:, None] & (j * STEP < D)[None, :]
    x = given(x_ptr, rest_ptr, level, rows, j * STEP, real, N, D)
    bits = x.to(tl.int32, bitcast=True).to(tl.int64)
    odd = ((j.to(tl.int64) * 2 + 1) * -0x61C8864680B583EB) & 0x7FFFFFFFFFFFFFFF | 1
    coarse = mixed(tl.where((j * STEP < D)[None, :], (bits + (1 << (ROUNDED - 1))) >> ROUNDED, 0), odd[None, :])
    key = ((coarse >> 22) << 22) | (mixed(bits, odd[None, :]) & 0x3FFFFF)
    tl.store(key_ptr + level * tl.cast(N, tl.int64) + rows, tl.where(code >= 0, key, 0x7FFFFFFFFFFFFFFF), mask=rows < N)


@jit
def pick(
    x_ptr: "Any", rest_ptr: "Any", code_ptr: "Any", chosen_ptr: "Any", sample_ptr: "Any", N: "Any", S: "Any",
    LEVELS: constexpr, D: constexpr, DP: constexpr, BLOCK: constexpr,
) -> None:  # fmt: skip
    """The rows `chosen` [LEVELS, S] of what each level was given; NaN for a token without a code."""
    level = tl.program_id(1)
    place, d = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, DP)
    rows = tl.load(chosen_ptr + level * S + place, mask=place < S, other=0)
    code = tl.load(code_ptr + rows * LEVELS + level, mask=place < S, other=-1)
    x = given(x_ptr, rest_ptr, level, rows, d, (code >= 0)[:, None] & (d < D)[None, :], N, D)
    x = tl.where((code >= 0)[:, None], x, float("nan"))
    at = (level * S + place)[:, None].to(tl.int64) * D + d[None, :]
    tl.store(sample_ptr + at, x, mask=(place < S)[:, None] & (d < D)[None, :])


@jit
def pass_back(
    upstream_ptr: "Any", by_mean_ptr: "Any", x_ptr: "Any", value_ptr: "Any", pull_ptr: "Any",
    code_ptr: "Any", values_ptr: "Any",
    out_ptr: "Any", N: "Any",
    LEVELS: constexpr, D: constexpr, DP: constexpr, BLOCK_N: constexpr, UPSTREAM: constexpr, MEAN: constexpr,
) -> None:  # fmt: skip
    """The gradient by the tokens: that of what flows on, and that of the mean squared error; 0 without a code."""
    rows, d = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, DP)
    inside = rows < N
    code = tl.load(code_ptr + rows.to(tl.int64) * LEVELS, mask=inside, other=-1)
    good = (code >= 0)[:, None] & (d < D)[None, :]
    at = rows[:, None].to(tl.int64) * D + d[None, :]
    out = tl.zeros((BLOCK_N, DP), tl.float32)
    if UPSTREAM:
        out = tl.load(upstream_ptr + at, mask=good, other=0.0)
    if MEAN:
        if LEVELS == 1:
            away = tl.load(x_ptr + at, mask=good, other=0.0) - tl.load(value_ptr + at, mask=good, other=0.0)
        else:
            away = tl.load(pull_ptr + at, mask=good, other=0.0)
        out = out + away * (2.0 * tl.load(by_mean_ptr) / tl.load(values_ptr))
    tl.store(out_ptr + at, out, mask=inside[:, None] & (d < D)[None, :])


@jit
def follow(
    code_ptr: "Any", weight_ptr: "Any", count_ptr: "Any", sum_ptr: "Any", sample_ptr: "Any",
    after_ptr: "Any", K: "Any", S: "Any",
    decay: "Any", rate: "Any", below: "Any", forgotten: "Any",
    D: constexpr, DP: constexpr, BLOCK_K: constexpr, SPAN: constexpr, BLOCK_S: constexpr, REVIVE: constexpr,
) -> None:  # fmt: skip
    """`Codebook.update`: codes follow in place, those that are hardly used start again; the new weights beside.

    Every program reads all weights, as they were; so they are written elsewhere.
    """
    many = tl.arange(0, SPAN)
    old = tl.zeros((SPAN,), tl.float32)
    now = tl.zeros((SPAN,), tl.float32)
    for first in range(0, K, SPAN):
        old += tl.load(weight_ptr + first + many, mask=first + many < K, other=0.0)
        now += tl.load(count_ptr + first + many, mask=first + many < K, other=0.0)
    fresh = tl.sum(old, axis=0) == 0.0
    even = tl.sum(now, axis=0) / K
    total = tl.zeros((SPAN,), tl.float32)
    for first in range(0, K, SPAN):
        at = first + many
        after = moved(weight_ptr, count_ptr, at, K, fresh, even, decay, rate, forgotten)
        total += tl.where(at < K, after, 0.0)
    uniform = tl.sum(total, axis=0) / K
    start = tl.program_id(0) * BLOCK_K
    k, d = start + tl.arange(0, BLOCK_K), tl.arange(0, DP)
    here = (k < K)[:, None] & (d < D)[None, :]
    at = k[:, None].to(tl.int64) * D + d[None, :]
    after = moved(weight_ptr, count_ptr, k, K, fresh, even, decay, rate, forgotten)
    count = tl.load(count_ptr + k, mask=k < K, other=0.0)
    code = tl.load(code_ptr + at, mask=here, other=0.0)
    step = tl.where(count > 0, rate / tl.maximum(after, forgotten), 0.0)
    code = code + step[:, None] * (tl.load(sum_ptr + at, mask=here, other=0.0) - count[:, None] * code)
    if REVIVE:
        dead = (after < below * uniform) & (k < K)
        if tl.sum(dead.to(tl.int32), axis=0) > 0:
            before = tl.zeros((SPAN,), tl.int32)
            for first in range(0, start, SPAN):
                some = first + many
                weight = moved(weight_ptr, count_ptr, some, K, fresh, even, decay, rate, forgotten)
                before += ((weight < below * uniform) & (some < start)).to(tl.int32)
            place = tl.sum(before, axis=0) + tl.cumsum(dead.to(tl.int32), axis=0) - 1
            s = tl.arange(0, BLOCK_S)
            x = tl.load(sample_ptr + s[:, None] * D + d[None, :], mask=(s < S)[:, None] & (d < D)[None, :], other=0.0)
            usable = (tl.min((tl.abs(x) <= 3.4028234663852886e38).to(tl.int32), axis=1) > 0) & (s < S)
            order = tl.cumsum(usable.to(tl.int32), axis=0) - 1
            match = usable[None, :] & (order[None, :] == place[:, None]) & dead[:, None]
            source = tl.sum(tl.where(match, s[None, :], 0), axis=1)
            revived = tl.sum(match.to(tl.int32), axis=1) > 0
            other = tl.load(sample_ptr + source[:, None] * D + d[None, :], mask=here & revived[:, None], other=0.0)
            code = tl.where(revived[:, None], other, code)
            after = tl.where(revived, uniform, after)
    tl.store(code_ptr + at, code, mask=here)
    tl.store(after_ptr + k, after, mask=k < K)


@jit
def moved(
    weight_ptr: "Any",
    count_ptr: "Any",
    k: "Any",
    K: "Any",
    fresh: "Any",
    even: "Any",
    decay: "Any",
    rate: "Any",
    forgotten: "Any",
) -> "Any":
    """The weights of the codes `k` after a step; before the first every code weighs as even use would."""
    weight = tl.load(weight_ptr + k, mask=k < K, other=0.0)
    before = tl.where(fresh, even, weight)
    before = tl.where(before > forgotten, before, 0.0)
    return decay * before + rate * tl.load(count_ptr + k, mask=k < K, other=0.0)
