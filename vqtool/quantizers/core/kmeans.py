"""How a codebook starts: the tokens it looks at, and k-means without an empty or a double code."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vqtool.errors import VqtoolError
from vqtool.quantizers.core.search import nearest

ROUNDS = 10
SEEDINGS = 16  # steps in which the first centres are chosen
POINTS_PER_CODE = 64  # more inputs than this hardly move a centre
MOST_POINTS = 2**17


def points_wanted(size: int) -> int:
    """How many inputs a start of `size` codes looks at."""
    return max(2 * size, min(POINTS_PER_CODE * size, MOST_POINTS))


def starting_points(z: Tensor, mask: Tensor | None, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` real and finite tokens of `z` [B, T, D], drawn at random, as float32 [N, D]."""
    tokens = z.detach().reshape(-1, z.shape[-1]).float()
    usable = tokens.isfinite().all(1)
    if mask is not None:
        usable = usable & mask.reshape(-1).bool()
    tokens = tokens[usable]
    if tokens.shape[0] == 0:
        raise VqtoolError(
            "there is no finite token to start the codebook from",
            hint="look at the encoder's outputs: all of them are masked, NaN or infinite",
            exit_code=1,
        )
    if tokens.shape[0] > most:
        tokens = tokens[torch.randperm(tokens.shape[0], generator=generator)[:most].to(tokens.device)]
    return tokens.contiguous()


@torch.no_grad()
def kmeans(
    points: Tensor, size: int, generator: torch.Generator, rounds: int = ROUNDS, *, first: Tensor | None = None
) -> Tensor:
    """`size` distinct centres [size, d] of `points` [N, d]; a code that no point chooses moves to a far-off point.

    `first` [M <= size, d]: centres to begin from; the others are spread among the points that these are far from.
    """
    centres = spread_rows(points, size, generator, first)
    for _ in range(rounds):
        codes, _ = nearest(points, centres)
        counts = torch.bincount(codes, minlength=size)
        sums = torch.zeros_like(centres).index_add_(0, codes, points)
        used = counts > 0
        means = torch.where(used[:, None], sums / counts.clamp_min(1)[:, None], centres)
        empty = (~used).nonzero().squeeze(1)
        if empty.numel():
            away = (points - means[codes]).square().sum(1)
            far = away.topk(min(empty.numel(), points.shape[0])).indices
            means[empty[: far.numel()]] = points[far]
        if torch.equal(means, centres):
            break
        centres = means
    return distinct(centres, points, generator)


@torch.no_grad()
def angular_kmeans(points: Tensor, size: int, generator: torch.Generator, *, first: Tensor | None = None) -> Tensor:
    """The same for codes that are compared by their direction, and have the length that is best along it [size, d]."""
    known = None if first is None else F.normalize(first)
    ways = F.normalize(kmeans(F.normalize(points), size, generator, first=known))
    codes = nearest(F.normalize(points), ways)[0]
    along = (points * ways[codes]).sum(1)
    counts = torch.bincount(codes, minlength=size)
    lengths = points.new_zeros(size).index_add_(0, codes, along) / counts.clamp_min(1)
    return ways * torch.where(counts > 0, lengths, along.mean())[:, None]


def spread_rows(points: Tensor, size: int, generator: torch.Generator, first: Tensor | None = None) -> Tensor:
    """`size` rows far from each other, drawn in proportion to their squared distance from those drawn before.

    (k-means++, Arthur and Vassilvitskii 2007, with many rows per step as in Bahmani et al. 2012.)
    """
    if first is not None and len(first):
        centres = first
    else:
        centres = points[torch.randint(points.shape[0], (1,), generator=generator).to(points.device)]
    away, new = torch.full((points.shape[0],), torch.inf, device=points.device), centres
    while centres.shape[0] < size:
        codes, _ = nearest(points, new)
        away = torch.minimum(away, (points - new[codes]).square().sum(1))
        wanted = min(-(-size // SEEDINGS), size - centres.shape[0], int((away > 0).sum()))
        if wanted == 0:  # there are no more different points
            rest = random_rows(points, size - centres.shape[0], generator)
            return distinct(torch.cat([centres, rest]), points, generator)
        chance = (away / away.max()).cpu().double()
        new = points[torch.multinomial(chance, wanted, generator=generator).to(points.device)]
        centres = torch.cat([centres, new])
    return centres


@torch.no_grad()
def random_rows(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """`size` distinct rows [size, d]: random points, where there are too few of them with a little noise."""
    order = torch.randperm(points.shape[0], generator=generator)
    repeats = -(-size // points.shape[0])
    rows = points[order.repeat(repeats)[:size].to(points.device)]
    return distinct(rows, points, generator)


def distinct(rows: Tensor, points: Tensor, generator: torch.Generator) -> Tensor:
    """`rows` [K, d] with noise (a hundredth of the spread of `points`) on all but the first of equal rows."""
    _, group = torch.unique(rows, dim=0, return_inverse=True)
    order = group.argsort(stable=True)
    again = torch.zeros_like(group, dtype=torch.bool)
    again[order[1:]] = group[order[1:]] == group[order[:-1]]
    if not bool(again.any()):
        return rows
    spread = points.std(0, correction=0)
    spread = torch.maximum(spread, 1e-3 * points.abs().amax().clamp_min(1e-3))
    noise = torch.randn(rows.shape, generator=generator).to(rows)
    return torch.where(again[:, None], rows + 1e-2 * spread * noise, rows)
