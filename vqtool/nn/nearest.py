"""Nearest-code search that never holds N x K scores, exact where float32 can tell two codes apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CHUNK_SCORES = {"cpu": 2**20}  # scores per chunk: 4 MiB, so that they stay in the cache
CHUNK_SCORES_ELSEWHERE = 2**25  # on accelerators a launch costs more than a trip to memory
BLOCKED_FROM = 256  # codes from which the two-stage minimum pays
LEAST_ROWS = 8  # a product with fewer rows may round equal columns unequally, and so break a tie the wrong way


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
    if torch.compiler.is_compiling():  # a plain graph, for compile and export: N x K scores
        scores = torch.mm(with_ones(x, centre), weight.t())
        lowest, codes = scores.min(1)
        return codes, lowest.isfinite()
    size = codebook.shape[0]
    blocks = 1 if size < BLOCKED_FROM else 8 if size < 2 * BLOCKED_FROM else 16
    if blocks > 1:
        weight = interleaved(weight, blocks)
    codes, lowest = chunked(x, centre, weight, blocks)
    return codes.clamp_(max=size - 1), lowest.isfinite()


def prepared(codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The centre [d] and the rows (-s^2 e', s^2 |e'|^2 / 2) [K, d + 1], e' = e - centre and s = 1 / max |e'|."""
    centre = robust_centre(codebook)
    offset = codebook - centre
    largest = offset.abs().amax().clamp(torch.finfo(offset.dtype).tiny, torch.finfo(offset.dtype).max)
    scale = torch.exp2(-torch.frexp(largest).exponent.to(offset.dtype).clamp(-120, 120))
    offset = offset * scale
    half = offset.square().sum(1, keepdim=True) / 2
    return centre, torch.cat([offset * -scale, half], 1)


def robust_centre(codebook: Tensor) -> Tensor:
    """The mean [d] of the codes, weighted so that a few far-off codes do not pull it away from the many."""
    mean = codebook.mean(0)
    offset = codebook - mean
    largest = offset.abs().amax().clamp_min(torch.finfo(offset.dtype).tiny)
    weight = 1 / ((offset / largest).square().sum(1, keepdim=True) + 1e-12)
    return mean + (offset * (weight / weight.sum())).sum(0)


def with_ones(x: Tensor, centre: Tensor) -> Tensor:
    """(x - centre, 1) [N, d + 1]: the ones carry the codes' own share of the score through the product."""
    return torch.cat([x - centre, x.new_ones(x.shape[0], 1)], 1)


def interleaved(weight: Tensor, blocks: int) -> Tensor:
    """Rows of `weight` [K, d + 1] in the order that puts code j * blocks + b at row b * J + j, J = ceil(K / blocks).

    A minimum over b is then one over contiguous runs of J scores, which is several times as fast as a minimum with an
    index over all K, and the codes of one j are neighbours, so that the lowest index still wins a tie.
    """
    size, width = weight.shape
    runs = math.ceil(size / blocks)
    if runs * blocks != size:
        spare = weight.new_zeros(runs * blocks - size, width)
        spare[:, -1] = math.inf
        weight = torch.cat([weight, spare])
    return weight.view(runs, blocks, width).transpose(0, 1).reshape(-1, width)


def chunked(x: Tensor, centre: Tensor, weight: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """The search, a chunk of rows at a time: `weight` [K', d + 1] in interleaved blocks -> (codes, scores) [N]."""
    count, width = x.shape
    size = weight.shape[0]
    rows = max(LEAST_ROWS, min(count, CHUNK_SCORES.get(x.device.type, CHUNK_SCORES_ELSEWHERE) // size))
    codes = torch.empty(count, dtype=torch.long, device=x.device)
    lowest = x.new_empty(count)
    inputs = x.new_ones(rows, width + 1)
    scores = x.new_empty(rows, size)
    columns = weight.t()
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        taken = stop - start
        torch.sub(x[start:stop], centre, out=inputs[:taken, :width])
        padded = max(taken, LEAST_ROWS)
        found = torch.mm(inputs[:padded], columns, out=scores[:padded])[:taken]
        if blocks == 1:
            torch.min(found, 1, out=(lowest[start:stop], codes[start:stop]))
            continue
        found = found.view(taken, blocks, size // blocks)
        _, run = torch.min(found.amin(1), 1)
        least, block = torch.min(found.gather(2, run[:, None, None].expand(taken, blocks, 1)).squeeze(2), 1)
        lowest[start:stop] = least
        torch.add(block, run, alpha=blocks, out=codes[start:stop])
    return codes, lowest
