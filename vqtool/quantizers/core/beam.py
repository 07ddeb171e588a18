"""A beam search down residual levels: the codes whose sum comes closest, not the nearest of each level in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vqtool.quantizers.core.search import nearest_few

CHUNK = 2**11  # tokens at a time, so that the paths of a chunk stay in the cache


@torch.no_grad()
def best_paths(codebooks: Sequence[Tensor], tokens: Tensor, use: Tensor, width: int) -> Tensor:
    """The codes [N, levels] of each token's best path, -1 at levels that it does not take.

    Args:
        codebooks: the codes of each level, [K, D] each; K may differ.
        tokens: [N, D].
        use: [N, levels] bool, the levels that each token takes; tokens that are not finite take none.
        width: how many paths are kept after every level. 1 is the greedy way: the nearest code of each level in turn.
    """
    codes = torch.full(use.shape, -1, dtype=torch.long, device=tokens.device)
    if torch.compiler.is_compiling():  # a graph wants fixed shapes
        return Paths(tokens, width, len(codebooks)).down(codebooks, use)
    for some in use.any(1).nonzero().squeeze(1).split(CHUNK):
        codes[some] = Paths(tokens[some], width, len(codebooks)).down(codebooks, use[some])
    return codes


class Paths:
    """The `width` best ways down the levels of each of n tokens so far, the best first."""

    def __init__(self, tokens: Tensor, width: int, levels: int) -> None:
        n = tokens.shape[0]  # a length of its own in a graph, where `len` would be a constant
        self.width = width
        self.rest = tokens[:, None].expand(-1, width, -1).clone()  # [n, W, D] what the codes so far leave over
        self.away = tokens.new_full((n, width), math.inf)  # [n, W] its square; infinite for a path that is none
        self.away[:, 0] = 0
        self.codes = torch.full((n, width, levels), -1, dtype=torch.long, device=tokens.device)

    def down(self, codebooks: Sequence[Tensor], use: Tensor) -> Tensor:
        """All levels in turn, those that each token takes by `use` [n, levels]; the codes of the best paths."""
        for level, book in enumerate(codebooks):
            self.step(book, level, use[:, level])
        return self.codes[:, 0]

    def step(self, book: Tensor, level: int, here: Tensor) -> None:
        """Branch each path of the tokens that are `here` [n] to its nearest few codes, and keep the best of all."""
        if torch.compiler.is_compiling():
            rest, away, codes = self.branched(book, level, slice(None), self.width)
            self.rest = torch.where(here[:, None, None], rest, self.rest)
            self.codes = torch.where(here[:, None, None], codes, self.codes)
            self.away = torch.where(here[:, None], away, self.away)
            return
        begun = self.codes[:, 0].amax(1) >= 0 if level else torch.zeros_like(here)
        for some, paths in ((here & ~begun, 1), (here & begun, self.width)):  # those that begin have one path so far
            at = some.nonzero().squeeze(1)
            if len(at):
                self.rest[at], self.away[at], self.codes[at] = self.branched(book, level, at, paths)

    def branched(self, book: Tensor, level: int, at: Tensor | slice, paths: int) -> tuple[Tensor, Tensor, Tensor]:
        """`rest`, `away` and `codes` of the tokens `at` after a level, from their first `paths` paths."""
        rest, away, codes = self.rest[at, :paths], self.away[at, :paths], self.codes[at, :paths]
        few = min(self.width, len(book))
        found = nearest_few(rest.flatten(0, 1), book, few).view(-1, paths, few)
        left = rest[:, :, None] - book[found]  # [m, paths, few, D]
        cost = left.square().sum(3).masked_fill(away.isinf()[..., None], math.inf).flatten(1)
        if cost.shape[1] < self.width:  # fewer codes than paths
            cost = F.pad(cost, (0, self.width - cost.shape[1]), value=math.inf)
        best = cost.topk(self.width, 1, largest=False)
        place = best.indices.clamp_max(paths * few - 1)
        codes = codes.gather(1, (place // few)[..., None].expand(-1, -1, codes.shape[2]))
        codes[..., level] = found.flatten(1).gather(1, place)
        return left.flatten(1, 2).gather(1, place[..., None].expand(-1, -1, left.shape[3])), best.values, codes
