"""The operators as launches of Triton kernels: sizes of tiles, and memory for what they write."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from vqtool.api.quantizer import ROUNDED, SAMPLES
from vqtool.quantizers.core.averages import FORGOTTEN
from vqtool.quantizers.core.search import scaled
from vqtool.quantizers.gpu import kernels

SMALL = 2**19  # numbers of a codebook that one program prepares by itself; larger ones take many launches
MOST_SPLITS = 8  # parts of the tokens that are summed side by side; fixed, so that sums are the same in every run


def width(dim: int) -> int:
    """DP, the power of two that holds `dim` features."""
    return int(max(16, triton.next_power_of_2(dim)))


def precision(x: Tensor) -> str:
    """How products are taken: three of TF32 come as close as float32; few features gain nothing from them."""
    old = x.is_cuda and torch.cuda.get_device_capability(x.device) < (8, 0)
    return "ieee" if old or x.shape[-1] <= 16 else "tf32x3"


def tiles(dim: int, levels: int) -> dict[str, int]:
    """Tile sizes of the search, which spill no register on sm_90: see tests/quantizers/test_kernels.py."""
    wide = width(dim)
    rows = 128 if wide <= 64 else 64
    return {"BLOCK_N": rows if levels == 1 else rows // 2, "BLOCK_K": 64}


def prepared(tables: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(scaled codes [Q, K, D], half their squares [Q, K], centres [Q, D], scales [Q]) of `tables` [Q, K, D]."""
    levels, size, dim = tables.shape
    if size * dim > SMALL:
        each = [scaled(table) for table in tables]
        centre, scale, near, half = (torch.stack(part) for part in zip(*each, strict=True))
        return near, half.squeeze(2), centre, scale
    near, half = torch.empty_like(tables), tables.new_empty(levels, size)
    centre, scale = tables.new_empty(levels, dim), tables.new_empty(levels)
    wide = width(dim)
    kernels.prepare[(levels,)](tables, near, half, centre, scale, size, D=dim, DP=wide, BLOCK_K=2048 // wide,
                               num_warps=8)  # fmt: skip
    return near, half, centre, scale


def quantize(x: Tensor, mask: Tensor | None, tables: Tensor, train: bool, value: bool = True) -> tuple[Tensor, ...]:
    """See `operators.quantize`; without `value` the codes alone."""
    x, tables = x.contiguous(), tables.contiguous()
    (count, dim), (levels, size, _) = x.shape, tables.shape
    near, half, centre, scale = prepared(tables)
    chosen = tiles(dim, levels)
    programs = triton.cdiv(count, chosen["BLOCK_N"])
    more = train and levels > 1
    codes = torch.empty(count, levels, dtype=torch.long, device=x.device)
    sums = x.new_empty(count if value else 0, dim)
    pull = x.new_empty(count if more else 0, dim)
    rests = x.new_empty(levels - 1 if more else 0, count, dim)
    errors, counts = x.new_empty(levels * programs), torch.empty(2 * programs, dtype=torch.int32, device=x.device)
    kernels.quantize[(programs,)](
        x, x if mask is None else mask.contiguous().view(torch.uint8), tables, near, half, centre, scale,
        codes, sums, pull, rests, errors, counts, count, size,
        LEVELS=levels, D=dim, DP=width(dim), MASKED=mask is not None, VALUE=value or levels > 1, TRAIN=train,
        PRECISION=precision(x), num_warps=8, num_stages=2, **chosen,
    )  # fmt: skip
    mean, values, bad = x.new_empty(()), x.new_empty(()), torch.empty((), dtype=torch.long, device=x.device)
    if value:
        kernels.conclude[(1,)](errors, counts, mean, values, bad, programs, LEVELS=levels, D=dim, BLOCK=1024)
    return codes, sums, pull, rests, mean, values, bad


def search(x: Tensor, mask: Tensor | None, table: Tensor) -> Tensor:
    """See `operators.search`."""
    return quantize(x, mask, table[None], False, value=False)[0].squeeze(1)


def statistics(x: Tensor, rests: Tensor, codes: Tensor, size: int, samples: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See `operators.statistics`."""
    x, rests, codes = x.contiguous(), rests.contiguous(), codes.contiguous()
    (count, dim), levels, wide = x.shape, codes.shape[1], min(64, width(x.shape[1]))
    slabs = triton.cdiv(dim, wide)
    blocks = triton.cdiv(size, 64) * slabs
    splits = max(1, min(MOST_SPLITS, 256 // (blocks * levels)))
    sums, counts = x.new_empty(splits, levels, size, dim), x.new_empty(splits, levels, size)
    kernels.code_sums[(blocks, splits, levels)](
        x, rests, codes, sums, counts, count, size, LEVELS=levels, D=dim, DP=wide, BLOCK_N=64, BLOCK_K=64,
        SPLITS=splits, SLABS=slabs, PRECISION=precision(x), num_warps=8, num_stages=2,
    )  # fmt: skip
    many = min(count, size, SAMPLES) if samples else 0
    taken = x.new_empty(levels, many, dim)
    if many:
        keys = torch.empty(levels, count, dtype=torch.long, device=x.device)
        kernels.order_keys[(triton.cdiv(count, 256), levels)](
            x, rests, codes, keys, count, LEVELS=levels, D=dim, BLOCK_N=256, STEP=-(-dim // 4), ROUNDED=ROUNDED
        )
        chosen = keys.topk(many, 1, largest=False, sorted=True).indices
        kernels.pick[(triton.cdiv(many, 16), levels)](
            x, rests, codes, chosen, taken, count, many, LEVELS=levels, D=dim, DP=width(dim), BLOCK=16
        )
    if splits == 1:
        return counts[0], sums[0], taken
    return counts.sum(0), sums.sum(0), taken


def pass_back(
    upstream: Tensor | None, by_mean: Tensor | None, x: Tensor, value: Tensor, pull: Tensor, codes: Tensor,
    values: Tensor,
) -> Tensor:  # fmt: skip
    """See `operators.pass_back`."""
    out, (count, dim), wide = torch.empty_like(x), x.shape, width(x.shape[1])
    rows = 4096 // wide
    kernels.pass_back[(triton.cdiv(count, rows),)](
        x if upstream is None else upstream.contiguous(), x if by_mean is None else by_mean, x, value, pull, codes,
        values, out, count, LEVELS=codes.shape[1], D=dim, DP=wide, BLOCK_N=rows, UPSTREAM=upstream is not None,
        MEAN=by_mean is not None,
    )  # fmt: skip
    return out


def follow(
    codes: Tensor, weights: Tensor, counts: Tensor, sums: Tensor, samples: Tensor, decay: float, below: float
) -> None:
    """See `operators.follow`."""
    (size, dim), many, after = codes.shape, len(samples), torch.empty_like(weights)
    wide = width(dim)
    rows = 2048 // wide
    kernels.follow[(triton.cdiv(size, rows),)](
        codes, weights, counts.contiguous(), sums.contiguous(), samples.contiguous(), after, size, many, decay,
        1 - decay, below, FORGOTTEN, D=dim, DP=wide, BLOCK_K=rows, SPAN=1024,
        BLOCK_S=int(triton.next_power_of_2(max(1, many))), REVIVE=below > 0 and many > 0,
    )  # fmt: skip
    weights.copy_(after)
