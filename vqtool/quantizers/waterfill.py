"""Residual levels shared out by energy: loud tokens go through many of them, soft ones through few or none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt
from torch import Tensor

from vqtool.api import Nested
from vqtool.quantizers.core.composable import Coded, Layout, Make
from vqtool.quantizers.core.kmeans import points_wanted
from vqtool.quantizers.residual import Beam, Dropout, Levels, Residual
from vqtool.quantizers.vq import VQ, Decay, First, Revive, Size, Weights

Depth = Annotated[int, Ge(0), Doc("levels in use, the coarse ones; 0: all. Fewer: a lower rate")]
Step = Annotated[float, Gt(0), Doc("how much softer the tokens of each next level may be")]
Floor = Annotated[float, Doc("energy under which nothing is coded, dB from the tokens' mean")]
StartTokens = Annotated[
    int, Gt(0), Doc("tokens per code that the start looks at: the coarse levels see only some of them")
]


# kind: waterfill
class Waterfill(Residual):
    """Residual levels shared out by energy: loud tokens go through many of them, soft ones through few or none.

    Reverse water-filling (Cover and Thomas, theorem 10.3.3) with residual levels.

        self.rvq = Waterfill(8, levels=6, of=partial(VQ, codebook_size=1024), step_db=6.5, floor_db=-26)

    The levels are a ladder from coarse to fine. A token climbs on at the first level whose threshold its mean square
    exceeds, and takes all levels from there; the thresholds fall by `step_db` from each to the next down to `floor_db`
    below the mean energy of the tokens that the codebooks started from. So every coded token ends with an error near
    the floor, one under the floor costs nothing (codes -1, value 0), and each codebook sees inputs of one size. The
    rate is variable: side information besides the codes is how many levels each token has.

    Terms: `commitment` as in `residual`; `rate`, the mean over tokens of log2(1 + mean square / floor) / 2: bits per
    feature of a Gaussian source, to be weighed against the error (2 ln 2 * floor balances a mean squared error).
    """

    terms = frozenset({"commitment", "rate"})
    floor: Tensor  # [] mean square per feature

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *,
        of: Annotated[Make | Sequence[Make], Nested("quantizer", many=True), Doc("a level, or a list of them")] = VQ,
        levels: Levels = 4, depth: Depth = 0, step_db: Step = 3.5, floor_db: Floor = -60.0, beam: Beam = 1,
        start_tokens: StartTokens = 64, level_dropout: Dropout = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights, of=of, levels=levels, beam=beam, level_dropout=level_dropout)
        self.terms = self.terms | {"rate"}
        self.depth = min(depth, len(self.parts)) or len(self.parts)
        self.step_db, self.floor_db, self.start_tokens = step_db, floor_db, start_tokens
        self.register_buffer("floor", torch.zeros(()))
        self.has_floor = False

    @property
    def initialised(self) -> bool:
        return super().initialised and self.has_floor

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.has_floor = not self.floor.is_meta and bool(self.floor > 0)

    def use_levels(self, count: int) -> int:
        before, self.depth = self.depth, count
        return before

    def points_wanted(self) -> int:
        most = max(self.codebook_sizes)
        return max(points_wanted(most) * len(self.parts), self.start_tokens * most)

    def start_from(self, points: Tensor, generator: torch.Generator) -> None:
        """The floor from the tokens' mean energy; then level by level from what is left of the tokens that take it."""
        self.has_floor = True
        self.floor.copy_(points.square().mean() * 10 ** (self.floor_db / 10))
        for level, rest in self.inputs_of_parts(points, starting=True):
            some = torch.randperm(len(rest), generator=generator)[: level.points_wanted()]
            level.start_on_points(rest[some.to(rest.device)], generator)

    def rows_for_level(self, number: int, tokens: Tensor, rest: Tensor) -> Tensor:
        """Those loud enough; where none is, the loudest there are."""
        here = (self.entry(tokens) <= number).nonzero().squeeze(1)
        most = min(len(rest), max(self.parts[number].codebook_sizes))
        return here if len(here) else rest.square().sum(1).topk(most).indices

    def entry(self, tokens: Tensor) -> Tensor:
        """The first level that each of `tokens` [N, d] takes [N]; as many as there are levels for none."""
        levels = len(self.parts)
        above = 10 * (tokens.square().mean(1) / self.floor).clamp_min(1e-30).log10() / self.step_db
        return levels - above.ceil().nan_to_num(0).clamp(0, levels).long()

    def coded(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Coded:
        coded = super().coded(tokens, valid, shape)
        coded.terms["rate"] = self.rate(tokens, valid)
        return coded

    def levels_in_use(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Tensor:
        level = torch.arange(len(self.parts), device=tokens.device)
        kept = self.levels_kept(tokens, valid, shape, self.depth)
        end = torch.full((shape[0],), self.depth, device=tokens.device) if kept is None else kept
        use = (self.entry(tokens)[:, None] <= level) & (level < end.repeat_interleave(shape[1])[:, None])
        return use if valid is None else use & valid[:, None]

    def rate(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Bits per feature that the tokens would cost at the floor, if each were Gaussian."""
        bits = (tokens.square().mean(1) / self.floor).log1p().sum() / (2 * torch.log(torch.tensor(2.0)))
        return bits / max(1, len(tokens)) if valid is None else bits / valid.sum().clamp_min(1)


# kind: residual-waterfill
class ResidualWaterfill(Waterfill):
    """Residual levels shared out by energy: loud tokens go through many of them, soft ones through few or none.

    `waterfill` of `vq`.
    """

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *, codebook_size: Size = 512,
        first_size: Annotated[int, Ge(0), Doc("codes of the first level, which few tokens take; 0: as the others")] = 0,
        levels: Levels = 4, depth: Depth = 0, step_db: Step = 3.5, floor_db: Floor = -60.0, beam: Beam = 1,
        start_tokens: StartTokens = 64, level_dropout: Dropout = 0.0, decay: Decay = 0.99, revive_below: Revive = 0.1,
        start: First = "kmeans",
    ) -> None:  # fmt: skip
        how = partial(VQ, decay=decay, revive_below=revive_below, start=start)
        sizes = (first_size or codebook_size, *((codebook_size,) * (levels - 1)))
        super().__init__(dim, layout, weights, of=[partial(how, codebook_size=n) for n in sizes], depth=depth,
                         step_db=step_db, floor_db=floor_db, beam=beam, start_tokens=start_tokens,
                         level_dropout=level_dropout)  # fmt: skip
