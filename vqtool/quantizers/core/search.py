"""The search: the nearest rows of a codebook, as exact as float32 can tell, of equal ones the first."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_SCORES = {"cpu": 2**20}  # scores per chunk: 4 MiB, so that they stay in the cache
LARGE = 2**13  # codes of a codebook; of fewer, half of that is faster, and a product still has enough tokens
CHUNK_SCORES_ELSEWHERE = 2**28  # on accelerators a launch costs more than a trip to memory
LEAST_ROWS = 8  # a product with fewer tokens may round equal columns unequally, and so break a tie the wrong way


@torch.no_grad()
def nearest(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest row of `codebook` [K, d] for each row of `x` [N, d]: (codes [N] long, finite [N] bool).

    Nearest in the Euclidean sense; of equal distances the lowest index. `finite` is false where a row of `x` holds a
    NaN or an infinity; its code is then some number in [0, K) without meaning.

    Computed is |e|^2 / 2 - x.e, which orders the codes as |x - e|^2 does, with x and e relative to a centre of the
    codebook (so that a common offset cancels nothing) and e scaled by a power of two (so that tiny and huge codebooks
    neither underflow nor overflow).
    """
    x = x.to(codebook.dtype)
    centre, weight = prepared(codebook)
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        codes, lowest = (found.squeeze(0) for found in closest(x[None], centre[None], weight[None]))
        return codes, lowest.isfinite()
    codes, lowest = chunked(x, centre, in_blocks(weight))
    return codes.clamp_(max=codebook.shape[0] - 1), lowest.isfinite()


def closest(x: Tensor, centre: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(codes, scores) [G, N] of `x` [G, N, d] among G codebooks as `prepared`; a few large operators."""
    compiling = torch.compiler.is_compiling()  # compiled and exported it is one plain graph
    rows = x.shape[1] if compiling else max(1, CHUNK_SCORES_ELSEWHERE // (weight.shape[0] * weight.shape[1]))
    parts = [x] if compiling or x.shape[1] <= rows else x.split(rows, 1)
    found = [torch.bmm(with_ones(part, centre), weight.mT).min(2) for part in parts]
    lowest, codes = found[0] if len(found) == 1 else (torch.cat(part, 1) for part in zip(*found, strict=True))
    return codes, lowest


def prepared(codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The centre [..., 1, d] and the rows (-s^2 e', s^2 |e'|^2 / 2) [..., K, d + 1] of codebooks [..., K, d].

    e' = e - centre, and s is about 1 / max |e'|.
    """
    centre, scale, offset, half = scaled(codebook)
    return centre, torch.cat([offset * -scale, half], -1)


def scaled(codebook: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The centre [..., 1, d], s [..., 1, 1], rows s e' [..., K, d], s^2 |e'|^2 / 2 [..., K, 1]; s is a power of two."""
    centre = robust_centre(codebook)
    offset = codebook - centre
    scale = torch.exp2((-1 - largest_of(offset).log2().floor()).clamp(-120, 120))  # ONNX has no frexp
    offset = offset * scale
    return centre, scale, offset, offset.square().sum(-1, keepdim=True) / 2


def robust_centre(codebook: Tensor) -> Tensor:
    """The mean [..., 1, d] of the codes, weighted so that a few far-off codes do not pull it away from the many."""
    mean = codebook.mean(-2, keepdim=True)
    offset = codebook - mean
    weight = ((offset / largest_of(offset)).square().sum(-1, keepdim=True) + 1e-12).reciprocal()
    return mean + (offset * (weight / weight.sum((-2, -1), keepdim=True))).sum(-2, keepdim=True)


def largest_of(values: Tensor) -> Tensor:
    """The largest absolute value [..., 1, 1] of each table [..., K, d], at least the smallest normal number."""
    limits = torch.finfo(values.dtype)
    return values.abs().amax((-2, -1), keepdim=True).clamp(limits.tiny, limits.max)


def with_ones(x: Tensor, centre: Tensor) -> Tensor:
    """(x - centre, 1) [..., N, d + 1]: the ones carry the codes' own share of the score through the product."""
    return F.pad(x - centre, (0, 1), value=1.0)


def in_blocks(weight: Tensor) -> Tensor:
    """Rows of `weight` [K, d + 1] in blocks [J, B, d + 1], filled up with codes at an infinite distance."""
    size, width = weight.shape
    block = 16 if size >= 128 else 4
    spare = -size % block
    if spare:
        filling = weight.new_zeros(spare, width)
        filling[:, -1] = math.inf
        weight = torch.cat([weight, filling])
    return weight.view(-1, block, width)


def chunked(x: Tensor, centre: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The search, a chunk of rows at a time: `weight` [J, B, d + 1] in blocks -> (codes, scores) [N].

    A minimum with an index over all codes takes longer than the product. So: the minimum of each block, tokens side
    by side [J, n]; then which block holds the lowest; then which of its codes. Each step takes the first of equals.
    """
    count, width = x.shape
    blocks, block, _ = weight.shape
    size = blocks * block
    chunk = CHUNK_SCORES["cpu"] if size > LARGE else CHUNK_SCORES["cpu"] // 2
    rows = max(LEAST_ROWS, min(count, chunk // size))
    codes = torch.empty(count, dtype=torch.long, device=x.device)
    lowest = x.new_empty(count)
    inputs, buffer = x.new_ones(rows, width + 1), x.new_empty(rows * size)
    for start in range(0, count, rows):
        taken = min(rows, count - start)
        torch.sub(x[start : start + taken], centre, out=inputs[:taken, :width])
        padded = max(taken, LEAST_ROWS)
        scores = buffer[: padded * size].view(size, padded)
        torch.mm(weight.view(size, -1), inputs[:padded].t(), out=scores)
        scores = scores.view(blocks, block, padded)[..., :taken]
        least = scores.amin(1)
        best = torch.amin(least, 0, out=lowest[start : start + taken])
        run = first(least, best)
        within = first(scores.gather(0, run[None, None].expand(1, block, taken))[0], best)
        torch.add(within, run, alpha=block, out=codes[start : start + taken])
    return codes, lowest


def first(values: Tensor, lowest: Tensor) -> Tensor:
    """The index [n] of the first row of `values` [m, n] that is as low as `lowest` [n]; m - 1 where they are NaN."""
    size = values.shape[0]
    countdown = torch.arange(size, 0, -1, dtype=values.dtype, device=values.device)[:, None]
    hits = torch.le(values, lowest, out=torch.empty_like(values))  # as 1.0 and 0.0: faster than booleans and `where`
    return (size - hits.mul_(countdown).amax(0)).clamp_(max=size - 1).long()


@torch.no_grad()
def nearest_few(x: Tensor, codebook: Tensor, few: int) -> Tensor:
    """The `few` nearest rows of `codebook` [K, d] for each of the finite rows of `x` [N, d], nearest first: [N, few].

    The lowest scores lie in those blocks whose lowest scores are the lowest, so only a part is ever sorted.
    """
    if few > codebook.shape[0]:
        raise ValueError(f"{few} nearest of {codebook.shape[0]} codes")
    x = x.to(codebook.dtype)
    centre, weight = prepared(codebook)
    weight = in_blocks(weight)
    if torch.compiler.is_compiling():
        return _few(x, centre, weight, few)
    rows = max(1, CHUNK_SCORES.get(x.device.type, CHUNK_SCORES_ELSEWHERE) // codebook.shape[0])
    return torch.cat([_few(part, centre, weight, few) for part in x.split(rows)])


def _few(x: Tensor, centre: Tensor, weight: Tensor, few: int) -> Tensor:
    """`nearest_few` of one chunk, for `weight` [J, B, d + 1] in blocks."""
    blocks, block, _ = weight.shape
    scores = torch.mm(with_ones(x, centre), weight.flatten(0, 1).t()).view(-1, blocks, block)
    runs = scores.amin(2).topk(min(few, blocks), 1, largest=False).indices  # [N, R]
    among = scores.gather(1, runs[..., None].expand(-1, -1, block)).flatten(1)
    within = among.topk(few, 1, largest=False).indices
    return runs.gather(1, within // block) * block + within % block
