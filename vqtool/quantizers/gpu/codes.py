"""Triton kernels of what moves the codes: counts and sums by code, samples, the moving average; see `kernels.py`."""

from typing import Any

import triton.language as tl

from vqtool.quantizers.gpu.kernels import constexpr, finite, jit, tokens


@jit
def given(
    x_ptr: "Any", ROW: "Any", COLUMN: "Any", rest_ptr: "Any", book: "Any", n: "Any", d: "Any", here: "Any",
    N: "Any", GROUPS: constexpr, LEVELS: constexpr, D: constexpr,
) -> "Any":  # fmt: skip
    """What a book was given, for the tokens `n` [m] and features `d` [k], where `here` [m, k]: 0 elsewhere."""
    group, level = book // LEVELS, book % LEVELS
    if level == 0:
        found = tokens(x_ptr, ROW, COLUMN, n, group * D + d, here)
    else:
        at = ((level - 1) * tl.cast(N, tl.int64) + n[:, None]) * (GROUPS * D) + group * D + d[None, :]
        found = tl.load(rest_ptr + at, mask=here, other=0.0)
    return found


@jit
def code_sums(
    x_ptr: "Any", ROW: "Any", COLUMN: "Any", rest_ptr: "Any", code_ptr: "Any",
    sum_ptr: "Any", count_ptr: "Any", N: "Any", K: "Any",
    GROUPS: constexpr, LEVELS: constexpr, D: constexpr, DP: constexpr, BLOCK_N: constexpr, BLOCK_K: constexpr,
    SPLITS: constexpr, SLABS: constexpr, PRECISION: constexpr,
) -> None:  # fmt: skip
    """Counts and sums of tokens by code, of a part of the tokens each: sums [SPLITS, books, K, D].

    A product with codes in one column each, which are 0 and 1 and so exact; the order is fixed.
    """
    k = (tl.program_id(0) // SLABS) * BLOCK_K + tl.arange(0, BLOCK_K)
    slab = tl.program_id(0) % SLABS
    split, book = tl.program_id(1), tl.program_id(2)
    d = slab * DP + tl.arange(0, DP)
    total = tl.zeros((BLOCK_K, DP), tl.float32)
    count = tl.zeros((BLOCK_K,), tl.float32)
    span = tl.cdiv(N, SPLITS * BLOCK_N) * BLOCK_N
    for first in range(split * span, tl.minimum(N, (split + 1) * span), BLOCK_N):
        rows = first + tl.arange(0, BLOCK_N)
        code_at = rows.to(tl.int64) * (GROUPS * LEVELS) + book
        code = tl.load(code_ptr + code_at, mask=rows < N, other=-1).to(tl.int32)
        here = (code >= 0)[:, None] & (d < D)[None, :]
        x = given(x_ptr, ROW, COLUMN, rest_ptr, book, rows, d, here, N, GROUPS, LEVELS, D)
        hit = (k[:, None] == code[None, :]).to(tl.float32)
        total += tl.dot(hit, x, input_precision=PRECISION)
        count += tl.sum(hit, axis=1)
    at = (split * GROUPS * LEVELS + book) * K + k
    tl.store(sum_ptr + at[:, None].to(tl.int64) * D + d[None, :], total, mask=(k < K)[:, None] & (d < D)[None, :])
    if slab == 0:
        tl.store(count_ptr + at, count, mask=k < K)


@jit
def sorted_sums(
    x_ptr: "Any", ROW: "Any", COLUMN: "Any", rest_ptr: "Any", order_ptr: "Any", bound_ptr: "Any", sum_ptr: "Any",
    count_ptr: "Any", N: "Any", K: "Any",
    GROUPS: constexpr, LEVELS: constexpr, D: constexpr, DP: constexpr, BLOCK_N: constexpr,
) -> None:  # fmt: skip
    """The same for large codebooks: of tokens in the `order` [books, N] of their codes, those of a code in a row.

    The tokens of code k are from place `bound` [books, K + 1] k to the next. The sort is stable: the order is fixed.
    """
    code, d = tl.program_id(0), tl.program_id(1) * DP + tl.arange(0, DP)
    book = tl.program_id(2)
    first = tl.load(bound_ptr + book * (K + 1) + code)
    last = tl.load(bound_ptr + book * (K + 1) + code + 1)
    total = tl.zeros((BLOCK_N, DP), tl.float32)
    for start in range(first, last, BLOCK_N):
        place = start + tl.arange(0, BLOCK_N)
        rows = tl.load(order_ptr + book * tl.cast(N, tl.int64) + place, mask=place < last, other=0)
        here = (place < last)[:, None] & (d < D)[None, :]
        total += given(x_ptr, ROW, COLUMN, rest_ptr, book, rows, d, here, N, GROUPS, LEVELS, D)
    at = tl.cast(book * K + code, tl.int64)
    tl.store(sum_ptr + at * D + d, tl.sum(total, axis=0), mask=d < D)
    if tl.program_id(1) == 0:
        tl.store(count_ptr + at, (last - first).to(tl.float32))


@jit
def mixed(numbers: "Any", odd: "Any") -> "Any":
    """`vqtool/api/quantizer.py: mixed` of whole numbers [n, 4]."""
    keys = tl.sum(numbers * odd, axis=1)
    keys = (keys ^ (keys >> 29)) * 0x3F58476D1CE4E5B9
    return (keys ^ (keys >> 32)) & 0x3FFFFFFFFFFFFFFF


@jit
def multipliers() -> "Any":
    """The odd numbers [1, 4] that the numbers of a row are multiplied by."""
    return (((tl.arange(0, 4).to(tl.int64) * 2 + 1) * -0x61C8864680B583EB) & 0x7FFFFFFFFFFFFFFF | 1)[None, :]


@jit
def order_keys(
    x_ptr: "Any", ROW: "Any", COLUMN: "Any", rest_ptr: "Any", code_ptr: "Any",
    key_ptr: "Any", N: "Any",
    GROUPS: constexpr, LEVELS: constexpr, D: constexpr, BLOCK_N: constexpr, STEP: constexpr, ROUNDED: constexpr,
) -> None:  # fmt: skip
    """`vqtool/api/quantizer.py: order_keys` of what each book was given [books, N]; the largest for no code."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    book = tl.program_id(1)
    j = tl.arange(0, 4)
    code = tl.load(code_ptr + rows.to(tl.int64) * (GROUPS * LEVELS) + book, mask=rows < N, other=-1)
    real = (code >= 0)[:, None] & (j * STEP < D)[None, :]
    x = given(x_ptr, ROW, COLUMN, rest_ptr, book, rows, j * STEP, real, N, GROUPS, LEVELS, D)
    bits = x.to(tl.int32, bitcast=True).to(tl.int64)
    odd = multipliers()
    coarse = mixed(tl.where((j * STEP < D)[None, :], (bits + (1 << (ROUNDED - 1))) >> ROUNDED, 0), odd)
    key = ((coarse >> 22) << 22) | (mixed(bits, odd) & 0x3FFFFF)
    tl.store(key_ptr + book * tl.cast(N, tl.int64) + rows, tl.where(code >= 0, key, 0x7FFFFFFFFFFFFFFF), mask=rows < N)


@jit
def pick(
    x_ptr: "Any", ROW: "Any", COLUMN: "Any", rest_ptr: "Any", code_ptr: "Any",
    chosen_ptr: "Any", sample_ptr: "Any", N: "Any", S: "Any",
    GROUPS: constexpr, LEVELS: constexpr, D: constexpr, DP: constexpr, BLOCK: constexpr,
) -> None:  # fmt: skip
    """The rows `chosen` [books, S] of what each book was given; NaN for a token without a code."""
    book = tl.program_id(1)
    place, d = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, DP)
    rows = tl.load(chosen_ptr + book * S + place, mask=place < S, other=0)
    code = tl.load(code_ptr + rows * (GROUPS * LEVELS) + book, mask=place < S, other=-1)
    here = (code >= 0)[:, None] & (d < D)[None, :]
    x = given(x_ptr, ROW, COLUMN, rest_ptr, book, rows, d, here, N, GROUPS, LEVELS, D)
    x = tl.where((code >= 0)[:, None], x, float("nan"))
    at = (book * S + place)[:, None].to(tl.int64) * D + d[None, :]
    tl.store(sample_ptr + at, x, mask=(place < S)[:, None] & (d < D)[None, :])


@jit
def follow(
    code_ptr: "Any", weight_ptr: "Any", count_ptr: "Any", sum_ptr: "Any", sample_ptr: "Any",
    after_ptr: "Any", K: "Any", S: "Any",
    decay: "Any", rate: "Any", below: "Any", forgotten: "Any",
    D: constexpr, DP: constexpr, BLOCK_K: constexpr, SPAN: constexpr, SLAB: constexpr, BLOCK_S: constexpr,
    REVIVE: constexpr,
) -> None:  # fmt: skip
    """`averages.py: follow` of many codebooks: codes follow in place, unused ones start again; new weights beside.

    Every program reads all weights of a codebook, as they were; so they are written elsewhere.
    """
    book = tl.program_id(1)
    code_ptr += book * tl.cast(K, tl.int64) * D
    sum_ptr += book * tl.cast(K, tl.int64) * D
    weight_ptr += book * K
    count_ptr += book * K
    after_ptr += book * K
    sample_ptr += book * S * D
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
                earlier = first + many
                weight = moved(weight_ptr, count_ptr, earlier, K, fresh, even, decay, rate, forgotten)
                before += ((weight < below * uniform) & (earlier < start)).to(tl.int32)
            place = tl.sum(before, axis=0) + tl.cumsum(dead.to(tl.int32), axis=0) - 1
            s = tl.arange(0, BLOCK_S)
            fine = (s < S).to(tl.int32)
            for feature in range(0, D, SLAB):
                some = feature + tl.arange(0, SLAB)
                x_at = s[:, None] * D + some[None, :]
                x = tl.load(sample_ptr + x_at, mask=(s < S)[:, None] & (some < D)[None, :], other=0.0)
                fine = fine * finite(x)
            usable = fine > 0
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
    weight_ptr: "Any", count_ptr: "Any", k: "Any", K: "Any", fresh: "Any", even: "Any", decay: "Any", rate: "Any",
    forgotten: "Any",
) -> "Any":  # fmt: skip
    """The weights of the codes `k` after a step; before the first every code weighs as even use would."""
    weight = tl.load(weight_ptr + k, mask=k < K, other=0.0)
    before = tl.where(fresh, even, weight)
    before = tl.where(before > forgotten, before, 0.0)
    return decay * before + rate * tl.load(count_ptr + k, mask=k < K, other=0.0)
