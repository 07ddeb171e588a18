"""The operators as launches of Triton kernels: sizes of tiles, and memory for what they write."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from vqtool.api.quantizer import ROUNDED, SAMPLES
from vqtool.quantizers.core.averages import FORGOTTEN
from vqtool.quantizers.core.search import scaled
from vqtool.quantizers.gpu import codes as by_code
from vqtool.quantizers.gpu import kernels, wide

RESIDENT = 128  # features of a tile that registers hold
SLAB = 64  # features of a sum that registers hold
SMALL = 2**19  # numbers of a codebook that one program prepares by itself; larger ones take many launches
BY_PRODUCT = 2048  # codes up to which sums by code are a product; of more, tokens are sorted by their codes
MOST_SPLITS = 8  # parts of the tokens that are summed side by side; fixed, so that sums are the same in every run


def width(dim: int) -> int:
    """DP, the power of two that holds `dim` features."""
    return int(max(16, triton.next_power_of_2(dim)))


def capability(x: Tensor) -> tuple[int, int]:
    """The generation of the GPU; on a CPU, where kernels are interpreted, that of Hopper."""
    return torch.cuda.get_device_capability(x.device) if x.is_cuda else (9, 0)


def precision(x: Tensor) -> str:
    """How products are taken: three of TF32 come as close as float32; few features gain nothing from them."""
    return "ieee" if capability(x) < (8, 0) or x.shape[-1] <= 16 else "tf32x3"


def tiles(x: Tensor, levels: int) -> dict[str, int]:
    """Tile sizes of the search, which spill no register on sm_80 and sm_90: see tests/quantizers/test_kernels.py."""
    features, hopper = width(x.shape[1]), capability(x) >= (9, 0)
    if features > RESIDENT or (levels > 1 and features > 64 - 32 * hopper):  # slab by slab, by `wide.py`
        rows, codes, slab, warps = 64, 64 if hopper else 32, 32, 8
    elif hopper:
        rows, codes, slab, warps = 128 if features <= 64 and levels == 1 else 64, 64, features, 8
    else:
        few = {64: (64, 32, 4 if levels == 1 else 8), 128: (32, 64, 8)}
        rows, codes, warps = few.get(features, (128 if levels == 1 else 64, 64, 8))
        slab = features
    return {"BLOCK_N": rows, "BLOCK_K": codes, "DP": slab, "num_warps": warps, "num_stages": 2}


def prepared(tables: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(scaled codes [Q, K, D], half their squares [Q, K], centres [Q, D], scales [Q]) of `tables` [Q, K, D]."""
    levels, size, dim = tables.shape
    if size * dim > SMALL:
        each = [scaled(table) for table in tables]
        centre, scale, near, half = (torch.stack(part) for part in zip(*each, strict=True))
        return near, half.squeeze(2), centre, scale
    near, half = torch.empty_like(tables), tables.new_empty(levels, size)
    centre, scale = tables.new_empty(levels, dim), tables.new_empty(levels)
    features = width(dim)
    kernels.prepare[(levels,)](tables, near, half, centre, scale, size, D=dim, DP=features,
                               BLOCK_K=(8192 if features <= 128 else 2048) // features, num_warps=8)  # fmt: skip
    return near, half, centre, scale


def quantize(x: Tensor, mask: Tensor | None, tables: Tensor, train: bool, value: bool = True) -> tuple[Tensor, ...]:
    """See `operators.quantize`; without `value` the codes alone."""
    tables = tables.contiguous()
    (count, dim), (levels, size, _) = x.shape, tables.shape
    near, half, centre, scale = prepared(tables)
    chosen = tiles(x, levels)
    programs = triton.cdiv(count, chosen["BLOCK_N"])
    more = train and levels > 1
    codes = torch.empty(count, levels, dtype=torch.long, device=x.device)
    sums = tables.new_empty(count if value else 0, dim)
    pull = tables.new_empty(count if more else 0, dim)
    rests = tables.new_empty(levels - 1 if more else 0, count, dim)
    errors, counts = tables.new_empty(levels * programs), torch.empty(2 * programs, dtype=torch.int32, device=x.device)
    given = [x, *x.stride(), x if mask is None else mask.contiguous().view(torch.uint8), tables, near, half, centre,
             scale, codes, sums, rests]  # fmt: skip
    kernel = kernels.quantize
    if chosen["DP"] < width(dim):
        kernel = wide.quantize_wide
        given.append(tables.new_empty(count if levels > 1 else 0, dim))
    kernel[(programs,)](
        *given, errors, counts, count, size, LEVELS=levels, D=dim, MASKED=mask is not None, VALUE=value or levels > 1,
        TRAIN=train, PRECISION=precision(x), **chosen,
    )  # fmt: skip
    if more:
        block = 4096 // width(dim)
        kernels.left_over[(triton.cdiv(count, block),)](
            x, *x.stride(), sums, rests, codes, pull, count, LEVELS=levels, D=dim, DP=width(dim), BLOCK_N=block
        )
    mean, values = tables.new_empty(()), tables.new_empty(())
    bad = torch.empty((), dtype=torch.long, device=x.device)
    if value:
        kernels.conclude[(1,)](errors, counts, mean, values, bad, programs, LEVELS=levels, D=dim, BLOCK=1024)
    return codes, sums, pull, rests, mean, values, bad


def search(x: Tensor, mask: Tensor | None, table: Tensor) -> Tensor:
    """See `operators.search`."""
    return quantize(x, mask, table[None], False, value=False)[0].squeeze(1)


def statistics(x: Tensor, rests: Tensor, codes: Tensor, size: int, samples: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See `operators.statistics`."""
    rests, codes = rests.contiguous(), codes.contiguous()
    (count, dim), levels = x.shape, codes.shape[1]
    counts, sums = (by_product if size <= BY_PRODUCT else by_sorting)(x, rests, codes, size)
    many = min(count, size, SAMPLES) if samples else 0
    taken = rests.new_empty(levels, many, dim)
    if many:
        keys = torch.empty(levels, count, dtype=torch.long, device=x.device)
        by_code.order_keys[(triton.cdiv(count, 256), levels)](
            x, *x.stride(), rests, codes, keys, count, LEVELS=levels, D=dim, BLOCK_N=256, STEP=-(-dim // 4),
            ROUNDED=ROUNDED,
        )  # fmt: skip
        chosen = keys.topk(many, 1, largest=False, sorted=True).indices
        by_code.pick[(triton.cdiv(many, 16), levels)](
            x, *x.stride(), rests, codes, chosen, taken, count, many, LEVELS=levels, D=dim, DP=width(dim), BLOCK=16
        )
    return counts, sums, taken


def by_product(x: Tensor, rests: Tensor, codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Counts [Q, K] and sums [Q, K, D] of the tokens by code, of parts of the tokens side by side."""
    (count, dim), levels = x.shape, codes.shape[1]
    slab = min(SLAB, width(dim))
    slabs, block = triton.cdiv(dim, slab), 64 if capability(x) >= (9, 0) else 32
    blocks = triton.cdiv(size, block) * slabs
    splits = max(1, min(MOST_SPLITS, 256 // (blocks * levels)))
    sums, counts = rests.new_empty(splits, levels, size, dim), rests.new_empty(splits, levels, size)
    by_code.code_sums[(blocks, splits, levels)](
        x, *x.stride(), rests, codes, sums, counts, count, size, LEVELS=levels, D=dim, DP=slab, BLOCK_N=64,
        BLOCK_K=block, SPLITS=splits, SLABS=slabs, PRECISION=precision(x), num_warps=8, num_stages=2,
    )  # fmt: skip
    return (counts[0], sums[0]) if splits == 1 else (counts.sum(0), sums.sum(0))


def by_sorting(x: Tensor, rests: Tensor, codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The same of large codebooks, where a product would be of N x K x D steps."""
    (count, dim), levels = x.shape, codes.shape[1]
    sorted_codes, order = codes.t().contiguous().sort(dim=1, stable=True)
    bounds = torch.searchsorted(sorted_codes, torch.arange(size + 1, device=x.device).expand(levels, -1).contiguous())
    sums, counts, slab = rests.new_empty(levels, size, dim), rests.new_empty(levels, size), min(SLAB, width(dim))
    by_code.sorted_sums[(size, triton.cdiv(dim, slab), levels)](
        x, *x.stride(), rests, order, bounds, sums, counts, count, size, LEVELS=levels, D=dim, DP=slab, BLOCK_N=16
    )
    return counts, sums


def pass_back(
    upstream: Tensor | None, by_mean: Tensor | None, x: Tensor, value: Tensor, pull: Tensor, codes: Tensor,
    values: Tensor,
) -> Tensor:  # fmt: skip
    """See `operators.pass_back`."""
    out, (count, dim), features = torch.empty_like(value), x.shape, width(x.shape[1])
    rows = 4096 // features
    kernels.pass_back[(triton.cdiv(count, rows),)](
        value if upstream is None else upstream.contiguous(), value if by_mean is None else by_mean, x, *x.stride(),
        value, pull, codes, values, out, count, LEVELS=codes.shape[1], D=dim, DP=features, BLOCK_N=rows,
        UPSTREAM=upstream is not None, MEAN=by_mean is not None,
    )  # fmt: skip
    return out


def follow(
    codes: Tensor, weights: Tensor, counts: Tensor, sums: Tensor, samples: Tensor, decay: float, below: float
) -> None:
    """See `operators.follow`."""
    (size, dim), many, after = codes.shape, len(samples), torch.empty_like(weights)
    features = width(dim)
    rows = min(32, 2048 // features)
    by_code.follow[(triton.cdiv(size, rows),)](
        codes, weights, counts.contiguous(), sums.contiguous(), samples.contiguous(), after, size, many, decay,
        1 - decay, below, FORGOTTEN, D=dim, DP=features, BLOCK_K=rows, SPAN=1024, SLAB=min(32, features),
        BLOCK_S=int(triton.next_power_of_2(max(1, many))), REVIVE=below > 0 and many > 0,
    )  # fmt: skip
    weights.copy_(after)
