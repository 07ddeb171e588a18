"""The operators as launches of Triton kernels: sizes of tiles, and memory for what they write."""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
from torch import Tensor

from vqtool.api.quantizer import ROUNDED, SAMPLES
from vqtool.quantizers.core.averages import FORGOTTEN
from vqtool.quantizers.core.search import scaled
from vqtool.quantizers.gpu import choice, kernels, operators, wide
from vqtool.quantizers.gpu import codes as by_code

SLAB = 64  # features of a sum that registers hold
SMALL = 2**19  # numbers of a codebook that one program prepares by itself; larger ones take many launches
BY_PRODUCT = 2048  # codes up to which sums by code are a product; of more, tokens are sorted by their codes
USES = 264  # programs that sum softmaxes side by side; fixed, so that sums are the same in every run
MOST_SPLITS = 8  # parts of the tokens that are summed side by side; fixed, so that sums are the same in every run


def width(dim: int) -> int:
    """DP, the power of two that holds `dim` features."""
    return int(max(16, triton.next_power_of_2(dim)))


def capability(x: Tensor) -> tuple[int, int]:
    """The generation of the GPU; on a CPU, where kernels are interpreted, that of Hopper."""
    return torch.cuda.get_device_capability(x.device) if x.is_cuda else (9, 0)


def precision(x: Tensor, dim: int) -> str:
    """How products are taken: three of TF32 come as close as float32; few features gain nothing from them."""
    return "ieee" if capability(x) < (8, 0) or dim <= 16 else "tf32x3"


def fast(x: Tensor, dim: int) -> int:
    """Whether products are taken in bfloat16 first: 2 if that is emulated, as the interpreter cannot."""
    fits = precision(x, dim) == "tf32x3" and (dim <= 64 or capability(x) >= (9, 0))
    return (1 if x.is_cuda else 2) * int(fits and os.environ.get("VQTOOL_KERNELS") == "certified")


def tiles(x: Tensor, dim: int, levels: int) -> dict[str, int]:
    """Tile sizes of the search, which spill no register on sm_80 and sm_90: see tests/quantizers/test_kernels.py."""
    features, hopper = width(dim), capability(x) >= (9, 0)
    resident = (128 if levels == 1 else 32) if hopper else 64  # features of a tile that registers hold
    if features > resident:  # slab by slab, by `wide.py`
        rows, codes, slab = 64, 64 if hopper else 32, 32
    elif hopper:
        rows, codes, slab = 128 if features in (32, 64) and levels == 1 else 64, 64, features
    else:
        rows, codes, slab = 64, 64 if features == 16 else 32, features
    return {"BLOCK_N": rows, "BLOCK_K": codes, "DP": slab, "num_warps": 8, "num_stages": 2}


def prepared(tables: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(scaled codes [Q, K, D], half their squares [Q, K], centres [Q, D], scales [Q]) of `tables` [Q, K, D]."""
    levels, size, dim = tables.shape
    if size * dim > SMALL:
        centre, scale, near, half = scaled(tables)
        return near, half, centre, scale
    near, half = torch.empty_like(tables), tables.new_empty(levels, size)
    centre, scale = tables.new_empty(levels, dim), tables.new_empty(levels)
    features = width(dim)
    rows = min(256, (8192 if features <= 128 else 2048) // features)
    kernels.prepare[(levels,)](tables, near, half, centre, scale, size, D=dim, DP=features, BLOCK_K=rows,
                               num_warps=8, maxnreg=128)  # fmt: skip
    return near, half, centre, scale


def quantize(
    x: Tensor, mask: Tensor | None, tables: Tensor, groups: int, train: bool, value: bool = True
) -> tuple[Tensor, ...]:
    """See `operators.quantize`; without `value` the codes alone."""
    tables = tables.contiguous()
    (count, wide_dim), (books, size, dim) = x.shape, tables.shape
    levels = books // groups
    near, half, centre, scale = prepared(tables)
    chosen = tiles(x, dim, levels)
    programs = triton.cdiv(count, chosen["BLOCK_N"])
    more = train and levels > 1
    codes = torch.empty(count, books, dtype=torch.long, device=x.device)
    sums = tables.new_empty(count if value else 0, wide_dim)
    pull = tables.new_empty(count if more else 0, wide_dim)
    rests = tables.new_empty(levels - 1 if more else 0, count, wide_dim)
    errors = tables.new_empty(books * programs)
    counts = torch.empty(2 * groups * programs, dtype=torch.int32, device=x.device)
    given = [x, *x.stride(), mask_of(mask, x), tables, near, half, centre,
             scale, codes, sums, rests]  # fmt: skip
    kernel = kernels.quantize
    if chosen["DP"] < width(dim):
        kernel = wide.quantize_wide
        given.append(tables.new_empty(count if levels > 1 else 0, wide_dim))
    else:
        chosen["CERTIFIED"] = fast(x, dim)
        chosen["BLOCK_K"] //= 2 if fast(x, dim) else 1  # the second best takes registers too
    kernel[(programs, groups)](
        *given, errors, counts, count, size, GROUPS=groups, LEVELS=levels, D=dim, MASKED=mask is not None,
        VALUE=value or levels > 1, TRAIN=train, PRECISION=precision(x, dim), **chosen,
    )  # fmt: skip
    if more:
        grid, sizes = by_rows(count, wide_dim)
        kernels.left_over[grid](x, *x.stride(), sums, rests, codes, pull, count, BOOKS=books, LEVELS=levels, **sizes)
    mean, values = tables.new_empty(()), tables.new_empty(())
    bad = torch.empty((), dtype=torch.long, device=x.device)
    if value:
        kernels.conclude[(1,)](errors, counts, mean, values, bad, programs * groups, LEVELS=levels, D=dim, BLOCK=1024)
    return codes, sums, pull, rests, mean, values, bad


def search(x: Tensor, mask: Tensor | None, table: Tensor) -> Tensor:
    """See `operators.search`."""
    return quantize(x, mask, table[None], 1, False, value=False)[0].squeeze(1)


def statistics(
    x: Tensor, rests: Tensor, codes: Tensor, groups: int, size: int, samples: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See `operators.statistics`."""
    rests, codes = rests.contiguous(), codes.contiguous()
    count, books, dim = len(x), codes.shape[1], x.shape[1] // groups
    counts, sums = (by_product if size <= BY_PRODUCT else by_sorting)(x, rests, codes, groups, size)
    many = min(count, size, SAMPLES) if samples else 0
    taken, shape = rests.new_empty(books, many, dim), {"GROUPS": groups, "LEVELS": books // groups, "D": dim}
    if many:
        keys = torch.empty(books, count, dtype=torch.long, device=x.device)
        by_code.order_keys[(triton.cdiv(count, 256), books)](
            x, *x.stride(), rests, codes, keys, count, BLOCK_N=256, STEP=-(-dim // 4), ROUNDED=ROUNDED, **shape
        )
        chosen = keys.topk(many, 1, largest=False, sorted=True).indices
        by_code.pick[(triton.cdiv(many, 16), books)](
            x, *x.stride(), rests, codes, chosen, taken, count, many, DP=width(dim), BLOCK=16, **shape
        )
    return counts, sums, taken


def by_product(x: Tensor, rests: Tensor, codes: Tensor, groups: int, size: int) -> tuple[Tensor, Tensor]:
    """Counts [B, K] and sums [B, K, D] of the tokens by code, of parts of the tokens side by side."""
    count, books, dim = len(x), codes.shape[1], x.shape[1] // groups
    slab = min(SLAB, width(dim))
    slabs, block = triton.cdiv(dim, slab), 64 if capability(x) >= (9, 0) else 32
    blocks = triton.cdiv(size, block) * slabs
    splits = max(1, min(MOST_SPLITS, 256 // (blocks * books)))
    sums, counts = rests.new_empty(splits, books, size, dim), rests.new_empty(splits, books, size)
    by_code.code_sums[(blocks, splits, books)](
        x, *x.stride(), rests, codes, sums, counts, count, size, GROUPS=groups, LEVELS=books // groups, D=dim, DP=slab,
        BLOCK_N=64, BLOCK_K=block, SPLITS=splits, SLABS=slabs, PRECISION=precision(x, dim), num_warps=8, num_stages=2,
    )  # fmt: skip
    return (counts[0], sums[0]) if splits == 1 else (counts.sum(0), sums.sum(0))


def by_sorting(x: Tensor, rests: Tensor, codes: Tensor, groups: int, size: int) -> tuple[Tensor, Tensor]:
    """The same of large codebooks, where a product would be of N x K x D steps."""
    count, books, dim = len(x), codes.shape[1], x.shape[1] // groups
    sorted_codes, order = codes.t().contiguous().sort(dim=1, stable=True)
    bounds = torch.searchsorted(sorted_codes, torch.arange(size + 1, device=x.device).expand(books, -1).contiguous())
    sums, counts, slab = rests.new_empty(books, size, dim), rests.new_empty(books, size), min(SLAB, width(dim))
    by_code.sorted_sums[(size, triton.cdiv(dim, slab), books)](
        x, *x.stride(), rests, order, bounds, sums, counts, count, size, GROUPS=groups, LEVELS=books // groups, D=dim,
        DP=slab, BLOCK_N=16,
    )  # fmt: skip
    return counts, sums


def pass_back(
    upstream: Tensor | None, by_mean: Tensor | None, x: Tensor, value: Tensor, pull: Tensor, codes: Tensor,
    values: Tensor,
) -> Tensor:  # fmt: skip
    """See `operators.pass_back`."""
    out, (grid, sizes) = torch.empty_like(value), by_rows(*x.shape)
    kernels.pass_back[grid](
        value if upstream is None else upstream.contiguous(), value if by_mean is None else by_mean, x, *x.stride(),
        value, pull, codes, values, out, len(x), BOOKS=codes.shape[1], PULLED=len(pull) > 0,
        UPSTREAM=upstream is not None, MEAN=by_mean is not None, **sizes,
    )  # fmt: skip
    return out


def by_rows(count: int, dim: int) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid of a kernel that takes tokens [N, D] number by number, and its tiles."""
    features = min(width(dim), 512)
    rows = 2048 // features
    return (triton.cdiv(count, rows), triton.cdiv(dim, features)), {"D": dim, "DP": features, "BLOCK_N": rows}


def follow(*given: Any) -> None:
    """See `operators.follow`."""
    operators.together(follow_stack, *given)


def follow_stack(
    codes: Tensor, weights: Tensor, counts: Tensor, sums: Tensor, samples: Tensor, decay: float, below: float
) -> None:
    """`core/averages.py: follow` of codebooks [B, K, D]."""
    (books, size, dim), many, after = codes.shape, samples.shape[1], torch.empty_like(weights)
    features = width(dim)
    rows = min(16, 2048 // features)
    by_code.follow[(triton.cdiv(size, rows), books)](
        codes, weights, counts.contiguous(), sums.contiguous(), samples.contiguous(), after, size, many, decay,
        1 - decay, below, FORGOTTEN, D=dim, DP=features, BLOCK_K=rows, SPAN=1024, SLAB=16,
        BLOCK_S=int(triton.next_power_of_2(max(1, many))), REVIVE=below > 0 and many > 0, maxnreg=128,
    )  # fmt: skip
    weights.copy_(after)


def choose(
    logits: Tensor, tokens: Tensor, weight: Tensor, vectors: Tensor, valid: Tensor | None, length: int,
    temperature: float, noisy: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """See `operators.choose`."""
    (groups, size, features), count = vectors.shape, len(logits)
    sizes = rows_of_logits(logits, tokens, weight, vectors, valid, noisy)
    run = sizes["BLOCK_N"] * triton.cdiv(count, sizes["BLOCK_N"] * USES)
    programs = triton.cdiv(count, run)
    value, codes = logits.new_empty(count, groups * features), logits.new_empty(count, groups, dtype=torch.long)
    uses, sums = logits.new_empty(programs, groups, size), logits.new_empty(count, groups, 2)
    choice.choose[(programs, groups)](
        logits, tokens, *tokens.stride(), weight, vectors.contiguous(), mask_of(valid, logits), value, codes, uses,
        sums, length, temperature, count, size, run, WIDTH=features, WP=width(features), **sizes,
    )  # fmt: skip
    return value, codes, uses.sum(0) / (count if valid is None else valid.sum().clamp_min(1)), sums


def choose_back(
    by_choice: Tensor, by_usage: Tensor, logits: Tensor, sums: Tensor, tokens: Tensor, weight: Tensor,
    valid: Tensor | None, length: int, temperature: float, noisy: bool,
) -> Tensor:  # fmt: skip
    """See `operators.choose_back`."""
    out, (groups, _, size) = torch.empty_like(logits), by_choice.shape
    sizes = rows_of_logits(logits, tokens, weight, by_usage, valid, noisy)
    choice.choose_back[(triton.cdiv(len(logits), sizes["BLOCK_N"]), groups)](
        by_choice.contiguous(), by_usage.contiguous(), logits, sums, tokens, *tokens.stride(), weight,
        mask_of(valid, logits), out, length, temperature, len(logits), size, **sizes,
    )  # fmt: skip
    return out


def mask_of(mask: Tensor | None, other: Tensor) -> Tensor:
    """A mask as bytes; where there is none anything, as it is not read."""
    return other if mask is None else mask.contiguous().view(torch.uint8)


def rows_of_logits(
    logits: Tensor, tokens: Tensor, weight: Tensor, groups: Tensor, valid: Tensor | None, noisy: bool
) -> dict[str, Any]:
    """Tiles of whole rows of logits, of `groups` [G, K, ...] codes; without the limit sm_90 would spill registers."""
    codes = width(groups.shape[1])
    return {"GROUPS": len(groups), "D": tokens.shape[1], "INPUTS": weight.shape[1], "KP": codes,
            "BLOCK_N": max(1, 1024 // codes), "MASKED": valid is not None, "NOISY": noisy, "maxnreg": 128}  # fmt: skip
