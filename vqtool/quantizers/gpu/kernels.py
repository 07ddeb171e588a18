"""Triton kernels of the search and its gradient; imported only where Triton is, and launched by `launches.py`.

All sums are taken in a fixed order and none by atomics, so that two runs give the same bits. `*_ptr` are contiguous
tensors of float32, but for `x_ptr`: of any type, its tokens ROW and its features COLUMN numbers apart, computed as
float32. Codes, keys and indices are int64.

N tokens have GROUPS x D features, and each group of features LEVELS codebooks of K codes; a `book` is one of them,
group by group. A group of a token has the row `token * GROUPS + group`. Tiles are DP wide, the power of two that holds
D. `wide.py` has the search of more than 128 features, `codes.py` what moves the codes, `choice.py` codes by logits.
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
def tokens(x_ptr: "Any", ROW: "Any", COLUMN: "Any", rows: "Any", d: "Any", here: "Any") -> "Any":
    """Features `d` [m] of the tokens `rows` [n] in float32, where `here` [n, m]: 0 elsewhere."""
    at = rows[:, None].to(tl.int64) * ROW + d[None, :] * COLUMN
    return tl.load(x_ptr + at, mask=here, other=0.0).to(tl.float32)


@jit
def finite(x: "Any") -> "Any":
    """Which rows [n] of `x` [n, m] are finite: 1 or 0."""
    return tl.min((tl.abs(x) <= 3.4028234663852886e38).to(tl.int32), axis=1)  # NaN compares as false


@jit
def countable(
    x: "Any", x_ptr: "Any", ROW: "Any", COLUMN: "Any", mask_ptr: "Any", n: "Any", d: "Any", inside: "Any",
    D: constexpr, GROUPS: constexpr, MASKED: constexpr,
) -> "Any":  # fmt: skip
    """(which tokens `n` [m] are real, which of them finite) of which `x` [m, DP] are the features `d` of a group."""
    fine = finite(x)
    if GROUPS > 1:  # of a token that is not finite in one group none has a code
        for group in range(GROUPS):
            part = tokens(x_ptr, ROW, COLUMN, n, group * D + d, inside[:, None] & (d < D)[None, :])
            fine = fine * finite(part)
    real = inside
    if MASKED:
        real = inside & (tl.load(mask_ptr + n, mask=inside, other=0) != 0)
    return real, real & (fine > 0)


@jit
def store_counts(count_ptr: "Any", real: "Any", good: "Any") -> None:
    """How many tokens of a program count, and how many do not for they are not finite: by one group alone."""
    program = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    bad = tl.sum((real & (good == 0)).to(tl.int32), axis=0)
    tl.store(count_ptr + 2 * program, tl.sum(good.to(tl.int32), axis=0))
    tl.store(count_ptr + 2 * program + 1, tl.where(tl.program_id(1) == 0, bad, 0))


@jit
def code_rows(table_ptr: "Any", level: "Any", k: "Any", d: "Any", K: "Any", D: constexpr) -> "Any":
    """Features `d` [m] of the codes `k` [n] of a level: 0 beyond the last."""
    at = (level * K + k)[:, None].to(tl.int64) * D + d[None, :]
    return tl.load(table_ptr + at, mask=(k < K)[:, None] & (d < D)[None, :], other=0.0)


@jit
def farthest(
    table_ptr: "Any", level: "Any", centre: "Any", K: "Any", D: constexpr, DP: constexpr, BLOCK_K: constexpr
) -> "Any":
    """The largest distance of a number in the codes of a level from that of the `centre` [DP]."""
    d = tl.arange(0, DP)
    found = tl.zeros((BLOCK_K, DP), tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        away = tl.abs(code_rows(table_ptr, level, k, d, K, D) - centre[None, :])
        found = tl.maximum(found, tl.where((k < K)[:, None] & (d < D)[None, :], away, 0.0))
    return tl.maximum(tl.max(tl.max(found, axis=1), axis=0), 1.1754943508222875e-38)


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
        total += code_rows(table_ptr, level, first + lanes, d, K, D)
    mean = tl.sum(total, axis=0) / K
    largest = farthest(table_ptr, level, mean, K, D, DP, BLOCK_K)
    total = tl.zeros((BLOCK_K, DP), tl.float32)
    weights = tl.zeros((BLOCK_K,), tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + lanes
        here = (k < K)[:, None] & wide[None, :]
        away = tl.where(here, code_rows(table_ptr, level, k, d, K, D) - mean[None, :], 0.0)
        ratio = away / largest
        weight = tl.where(k < K, 1.0 / (tl.sum(ratio * ratio, axis=1) + 1e-12), 0.0)
        weights += weight
        total += away * weight[:, None]
    centre = mean + tl.sum(total, axis=0) / tl.sum(weights, axis=0)
    tl.store(centre_ptr + level * D + d, centre, mask=wide)
    largest = farthest(table_ptr, level, centre, K, D, DP, BLOCK_K)
    exponent = (largest.to(tl.int32, bitcast=True) >> 23) - 126  # floor of the binary logarithm, and one
    exponent = tl.minimum(tl.maximum(-exponent, -120), 120)
    scale = ((exponent + 127) << 23).to(tl.float32, bitcast=True)
    tl.store(scale_ptr + level, scale)
    for first in range(0, K, BLOCK_K):
        k = first + lanes
        here = (k < K)[:, None] & wide[None, :]
        at = (level * K + k)[:, None].to(tl.int64) * D + d[None, :]
        e = (code_rows(table_ptr, level, k, d, K, D) - centre[None, :]) * scale
        tl.store(near_ptr + at, e, mask=here)
        tl.store(half_ptr + level * K + k, tl.sum(tl.where(here, e * e, 0.0), axis=1) * 0.5, mask=k < K)


@jit
def nearer(score: "Any", k: "Any", best: "Any", which: "Any") -> "Any":
    """(the least score so far, its code) [n, m] after one more tile, of codes `k` [m]: of equals the earlier one."""
    better = score < best
    return tl.where(better, score, best), tl.where(better, k[None, :], which)


@jit
def lowest(best: "Any", which: "Any") -> "Any":
    """The code [n] of the least of the scores `best` [n, m], kept lane by lane; the lowest of equals."""
    return tl.min(tl.where(best == tl.min(best, axis=1)[:, None], which, 2147483647), axis=1)


@jit
def nearest(
    x: "Any", near_ptr: "Any", half_ptr: "Any", book: "Any", K: "Any",
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
        at = (book * K + k)[None, :].to(tl.int64) * D + d[:, None]
        e = tl.load(near_ptr + at, mask=(k < K)[None, :] & (d < D)[:, None], other=0.0)
        half = tl.load(half_ptr + book * K + k, mask=k < K, other=float("inf"))
        best, which = nearer(half[None, :] - tl.dot(x, e, input_precision=PRECISION), k, best, which)
    return lowest(best, which)


@jit
def halves(x: "Any") -> "Any":
    """`x` rounded to bfloat16, and the rest of it rounded so: for the interpreter, where such products are wrong."""
    bits = x.to(tl.int32, bitcast=True)
    high = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -65536).to(tl.float32, bitcast=True)
    bits = (x - high).to(tl.int32, bitcast=True)
    return high, ((bits + 0x7FFF + ((bits >> 16) & 1)) & -65536).to(tl.float32, bitcast=True)


@jit
def certified(
    x: "Any", near_ptr: "Any", half_ptr: "Any", book: "Any", K: "Any",
    D: constexpr, DP: constexpr, BLOCK_N: constexpr, BLOCK_K: constexpr, EMULATED: constexpr,
) -> "Any":  # fmt: skip
    """(`nearest` by three products of bfloat16, which rows [BLOCK_N] could have another code by float32).

    Such a product is wrong by at most 2^-14 |x| max |e| (2^-15 was measured): the code is right where the second best
    is farther by more than twice that.
    """
    d, lanes = tl.arange(0, DP), tl.arange(0, BLOCK_K)
    best = tl.full((BLOCK_N, BLOCK_K), float("inf"), tl.float32)
    second = tl.full((BLOCK_N, BLOCK_K), float("inf"), tl.float32)
    which = tl.zeros((BLOCK_N, BLOCK_K), tl.int32)
    longest = tl.zeros((BLOCK_K,), tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + lanes
        at = (book * K + k)[None, :].to(tl.int64) * D + d[:, None]
        e = tl.load(near_ptr + at, mask=(k < K)[None, :] & (d < D)[:, None], other=0.0)
        half = tl.load(half_ptr + book * K + k, mask=k < K, other=float("inf"))
        longest = tl.maximum(longest, tl.where(k < K, half, 0.0))
        if EMULATED:
            x_high, x_low = halves(x)
            e_high, e_low = halves(e)
            dots = tl.dot(x_low, e_high) + tl.dot(x_high, e_low) + tl.dot(x_high, e_high)
        else:
            dots = tl.dot(x, e, input_precision="bf16x3")
        score = half[None, :] - dots
        second = tl.minimum(second, tl.maximum(best, score))
        best, which = nearer(score, k, best, which)
    code = lowest(best, which)
    others = tl.min(tl.where(which == code[:, None], second, best), axis=1)
    bound = tl.sqrt(tl.sum(x * x, axis=1) * (2.0 * tl.max(longest, axis=0))) * 6.103515625e-05
    return code, others - tl.min(best, axis=1) <= 2.0 * bound


@jit
def quantize(
    x_ptr: "Any", ROW: "Any", COLUMN: "Any", mask_ptr: "Any", table_ptr: "Any", near_ptr: "Any", half_ptr: "Any",
    centre_ptr: "Any", scale_ptr: "Any",
    code_ptr: "Any", value_ptr: "Any", rest_ptr: "Any", error_ptr: "Any",
    count_ptr: "Any", N: "Any", K: "Any",
    GROUPS: constexpr, LEVELS: constexpr, D: constexpr, DP: constexpr, BLOCK_N: constexpr, BLOCK_K: constexpr,
    MASKED: constexpr, VALUE: constexpr, TRAIN: constexpr, PRECISION: constexpr, CERTIFIED: constexpr,
) -> None:  # fmt: skip
    """Codes of all books, what flows on, the squared error, and which tokens count: one launch, one pass over `x`.

    Where TRAIN, also what each level but the first was given [LEVELS - 1, N, GROUPS x D]. Of several levels only the
    rest stays in registers: the sum of their code vectors is added to where it is written. If CERTIFIED (2: emulated),
    products are taken in bfloat16 first, and again where their error could have changed a code.
    """
    group = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, DP)
    rows, inside = n.to(tl.int64) * GROUPS + group, n < N
    here = inside[:, None] & (d < D)[None, :]
    at = rows[:, None] * D + d[None, :]
    x = tokens(x_ptr, ROW, COLUMN, n, group * D + d, here)
    real, good = countable(x, x_ptr, ROW, COLUMN, mask_ptr, n, d, inside, D, GROUPS, MASKED)
    rest = tl.where(good[:, None], x, 0.0)  # nothing of another row goes any further
    counts = here & good[:, None]
    for level in range(LEVELS):
        book = group * LEVELS + level
        centre = tl.load(centre_ptr + book * D + d, mask=d < D, other=0.0)
        scaled = (rest - centre[None, :]) * tl.load(scale_ptr + book)
        if CERTIFIED:
            code, unsure = certified(scaled, near_ptr, half_ptr, book, K, D, DP, BLOCK_N, BLOCK_K, CERTIFIED == 2)
            if tl.max((unsure & good).to(tl.int32), axis=0) > 0:
                code = nearest(scaled, near_ptr, half_ptr, book, K, D, DP, BLOCK_N, BLOCK_K, PRECISION)
        else:
            code = nearest(scaled, near_ptr, half_ptr, book, K, D, DP, BLOCK_N, BLOCK_K, PRECISION)
        tl.store(code_ptr + rows * LEVELS + level, tl.where(good, code, -1).to(tl.int64), mask=inside)
        if VALUE:
            taken = (book * K + code)[:, None].to(tl.int64) * D + d[None, :]
            value = tl.load(table_ptr + taken, mask=counts, other=0.0)
            rest = rest - value
            part = tl.sum(tl.sum(rest * rest, axis=1), axis=0)
            tl.store(error_ptr + book * tl.num_programs(0) + tl.program_id(0), part)
            if LEVELS > 1:
                tl.debug_barrier()
                value = value + tl.load(value_ptr + at, mask=here & (level > 0), other=0.0)
                if TRAIN:
                    level_at = level * tl.cast(N, tl.int64) * (GROUPS * D)
                    tl.store(rest_ptr + level_at + at, rest, mask=here & (level + 1 < LEVELS))
            tl.store(value_ptr + at, value, mask=here)
    if VALUE:
        store_counts(count_ptr, real, good)


@jit
def left_over(
    x_ptr: "Any", ROW: "Any", COLUMN: "Any", value_ptr: "Any", rest_ptr: "Any", code_ptr: "Any", pull_ptr: "Any",
    N: "Any", BOOKS: constexpr, LEVELS: constexpr, D: constexpr, DP: constexpr, BLOCK_N: constexpr,
) -> None:  # fmt: skip
    """The sum of what each level left over: what the others were given, and what is left of `x` at the end.

    D is all features here, with those of BOOKS codebooks; a program does DP of them.
    """
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.program_id(1) * DP + tl.arange(0, DP)
    inside = rows < N
    here = inside[:, None] & (d < D)[None, :]
    good = (tl.load(code_ptr + rows.to(tl.int64) * BOOKS, mask=inside, other=-1) >= 0)[:, None] & (d < D)[None, :]
    at = rows[:, None].to(tl.int64) * D + d[None, :]
    pull = tokens(x_ptr, ROW, COLUMN, rows, d, good) - tl.load(value_ptr + at, mask=good, other=0.0)
    for level in range(LEVELS - 1):
        pull += tl.load(rest_ptr + level * tl.cast(N, tl.int64) * D + at, mask=here, other=0.0)
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
def pass_back(
    upstream_ptr: "Any", by_mean_ptr: "Any", x_ptr: "Any", ROW: "Any", COLUMN: "Any", value_ptr: "Any", pull_ptr: "Any",
    code_ptr: "Any", values_ptr: "Any",
    out_ptr: "Any", N: "Any",
    BOOKS: constexpr, PULLED: constexpr, D: constexpr, DP: constexpr, BLOCK_N: constexpr,
    UPSTREAM: constexpr, MEAN: constexpr,
) -> None:  # fmt: skip
    """The gradient by the tokens: that of what flows on, and that of the mean squared error; 0 without a code.

    D is all features here, with those of BOOKS codebooks; a program does DP of them.
    """
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.program_id(1) * DP + tl.arange(0, DP)
    inside = rows < N
    code = tl.load(code_ptr + rows.to(tl.int64) * BOOKS, mask=inside, other=-1)
    good = (code >= 0)[:, None] & (d < D)[None, :]
    at = rows[:, None].to(tl.int64) * D + d[None, :]
    out = tl.zeros((BLOCK_N, DP), tl.float32)
    if UPSTREAM:
        out = tl.load(upstream_ptr + at, mask=good, other=0.0)
    if MEAN:
        if PULLED:
            away = tl.load(pull_ptr + at, mask=good, other=0.0)
        else:
            away = tokens(x_ptr, ROW, COLUMN, rows, d, good) - tl.load(value_ptr + at, mask=good, other=0.0)
        out = out + away * (2.0 * tl.load(by_mean_ptr) / tl.load(values_ptr))
    tl.store(out_ptr + at, out, mask=inside[:, None] & (d < D)[None, :])
