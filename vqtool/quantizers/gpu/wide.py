"""The search of more features than registers hold, slab by slab; see `kernels.py`."""

from typing import Any

import triton.language as tl

from vqtool.quantizers.gpu.kernels import constexpr, finite, jit, lowest, nearer, store_counts, tokens


@jit
def nearest_wide(
    x_ptr: "Any", ROW: "Any", COLUMN: "Any", rows: "Any", start: "Any", good: "Any", near_ptr: "Any", half_ptr: "Any",
    centre_ptr: "Any", scale_ptr: "Any", book: "Any", K: "Any",
    D: constexpr, DP: constexpr, BLOCK_N: constexpr, BLOCK_K: constexpr, PRECISION: constexpr,
) -> "Any":  # fmt: skip
    """`kernels.py: nearest` of the `rows` of `x` that are `good`, of features from `start`, in slabs of DP."""
    lanes = tl.arange(0, BLOCK_K)
    scale = tl.load(scale_ptr + book)
    best = tl.full((BLOCK_N, BLOCK_K), float("inf"), tl.float32)
    which = tl.zeros((BLOCK_N, BLOCK_K), tl.int32)
    for first in range(0, K, BLOCK_K):
        k = first + lanes
        dots = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
        for feature in range(0, D, DP):
            d = feature + tl.arange(0, DP)
            x = tokens(x_ptr, ROW, COLUMN, rows, start + d, good[:, None] & (d < D)[None, :])
            x = (x - tl.load(centre_ptr + book * D + d, mask=d < D, other=0.0)[None, :]) * scale
            at = (book * K + k)[None, :].to(tl.int64) * D + d[:, None]
            e = tl.load(near_ptr + at, mask=(k < K)[None, :] & (d < D)[:, None], other=0.0)
            dots = tl.dot(x, e, dots, input_precision=PRECISION)
        half = tl.load(half_ptr + book * K + k, mask=k < K, other=float("inf"))
        best, which = nearer(half[None, :] - dots, k, best, which)
    return lowest(best, which)


@jit
def quantize_wide(
    x_ptr: "Any", ROW: "Any", COLUMN: "Any", mask_ptr: "Any", table_ptr: "Any", near_ptr: "Any", half_ptr: "Any",
    centre_ptr: "Any", scale_ptr: "Any",
    code_ptr: "Any", value_ptr: "Any", rest_ptr: "Any", left_ptr: "Any", error_ptr: "Any",
    count_ptr: "Any", N: "Any", K: "Any",
    GROUPS: constexpr, LEVELS: constexpr, D: constexpr, DP: constexpr, BLOCK_N: constexpr, BLOCK_K: constexpr,
    MASKED: constexpr, VALUE: constexpr, TRAIN: constexpr, PRECISION: constexpr,
) -> None:  # fmt: skip
    """`kernels.py: quantize`; of several levels `left` [N, GROUPS x D] holds what is left over so far."""
    group = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows, inside = n.to(tl.int64) * GROUPS + group, n < N
    fine = inside.to(tl.int32)
    for feature in range(0, GROUPS * D, DP):
        d = feature + tl.arange(0, DP)
        fine = fine * finite(tokens(x_ptr, ROW, COLUMN, n, d, inside[:, None] & (d < GROUPS * D)[None, :]))
    real = inside
    if MASKED:
        real = inside & (tl.load(mask_ptr + n, mask=inside, other=0) != 0)
    good = real & (fine > 0)
    for level in range(LEVELS):
        book = group * LEVELS + level
        tl.debug_barrier()
        if level == 0:
            code = nearest_wide(x_ptr, ROW, COLUMN, n, group * D, good, near_ptr, half_ptr, centre_ptr, scale_ptr,
                                book, K, D, DP, BLOCK_N, BLOCK_K, PRECISION)  # fmt: skip
        else:
            code = nearest_wide(left_ptr, D, 1, rows, 0, good, near_ptr, half_ptr, centre_ptr, scale_ptr,
                                book, K, D, DP, BLOCK_N, BLOCK_K, PRECISION)  # fmt: skip
        tl.debug_barrier()
        tl.store(code_ptr + rows * LEVELS + level, tl.where(good, code, -1).to(tl.int64), mask=inside)
        if VALUE:
            part = tl.zeros((BLOCK_N,), tl.float32)
            for feature in range(0, D, DP):
                d = feature + tl.arange(0, DP)
                here = inside[:, None] & (d < D)[None, :]
                counts = here & good[:, None]
                at = rows[:, None] * D + d[None, :]
                taken = (book * K + code)[:, None].to(tl.int64) * D + d[None, :]
                value = tl.load(table_ptr + taken, mask=counts, other=0.0)
                rest = tokens(x_ptr, ROW, COLUMN, n, group * D + d, counts & (level == 0)) - value
                if LEVELS > 1:
                    more = counts & (level > 0)
                    rest += tl.load(left_ptr + at, mask=more, other=0.0)
                    value += tl.load(value_ptr + at, mask=more, other=0.0)
                    tl.store(left_ptr + at, rest, mask=here)
                    if TRAIN:
                        level_at = level * tl.cast(N, tl.int64) * (GROUPS * D)
                        tl.store(rest_ptr + level_at + at, rest, mask=here & (level + 1 < LEVELS))
                tl.store(value_ptr + at, value, mask=here)
                part += tl.sum(rest * rest, axis=1)
            tl.store(error_ptr + book * tl.num_programs(0) + tl.program_id(0), tl.sum(part, axis=0))
    if VALUE:
        store_counts(count_ptr, real, good)
