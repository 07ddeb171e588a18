"""Residual levels shared out by energy: loud tokens go through many of them, soft ones through few or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from vqtool.api import CodebookStats, Quantized, Quantizer
from vqtool.nn.beam import best_paths
from vqtool.nn.codebook import Codebook, Found, Start
from vqtool.nn.draw import row_keys, uniform
from vqtool.nn.kmeans import points_wanted
from vqtool.nn.moving_average import MovingCodebook
from vqtool.nn.straight_through import pass_on
from vqtool.nn.tokens import flat, own_precision, starting_points


class ResidualWaterfill(Quantizer):
    """Reverse water-filling (Cover and Thomas, theorem 10.3.3) with residual codebooks by moving average.

    The levels are a ladder from coarse to fine. A token climbs on at the first level whose threshold its mean square
    exceeds, and takes all levels from there; the thresholds fall by `step_db` from each to the next down to `floor_db`
    below the mean energy of the tokens that the codebooks started from. So every coded token ends with an error near
    the floor, one under the floor costs nothing (codes -1, value 0), and each codebook sees inputs of one size. The
    rate is variable: what a container must tell besides the codes is how many levels each token has.

    The gradient is straight-through once for the sum. Terms: `commitment`, the mean of (residual - code)^2 over tokens,
    features and levels that are in use; `rate`, the mean over tokens of log2(1 + mean square / floor) / 2: bits per
    feature of a Gaussian source, to be weighed against the error (2 ln 2 * floor balances a mean squared error).
    Level dropout as in `residual-ema`: a window that drops ends after 1 to `levels` levels.

    With `beam`, a token keeps that many ways down its levels until the last, and takes the one whose sum is closest:
    the same codebooks and the same rate, with a smaller error. In training and after it alike.
    """

    terms = frozenset({"commitment", "rate"})
    noun = "level"
    floor: Tensor  # [] mean square per feature

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: Annotated[int, Gt(1), Doc("codes per level")] = 512,
        first_size: Annotated[int, Ge(0), Doc("codes of the first level, which few tokens take; 0: as the others")] = 0,
        levels: Annotated[int, Ge(1), Doc("number of levels")] = 4,
        depth: Annotated[int, Ge(0), Doc("levels in use, the coarse ones; 0: all. Fewer: a lower rate")] = 0,
        step_db: Annotated[float, Gt(0), Doc("how much softer the tokens of each next level may be")] = 3.5,
        floor_db: Annotated[float, Doc("energy under which nothing is coded, dB from the tokens' mean")] = -60.0,
        beam: Annotated[int, Ge(1), Doc("ways down the levels that a token keeps; 1: the nearest code of each")] = 1,
        start_tokens: Annotated[
            int, Gt(0), Doc("tokens per code that the start looks at: the coarse levels see only some of them")
        ] = 64,
        level_dropout: Annotated[float, Interval(ge=0, le=1), Doc("share of windows trained with fewer levels")] = 0.0,
        decay: Annotated[float, Interval(ge=0, lt=1), Doc("share of the past in the moving average, per step")] = 0.99,
        revive_below: Annotated[float, Ge(0), Doc("revive codes used less than this share of uniform use")] = 0.1,
        start: Annotated[Start, Doc("first codes: k-means centres or random ones of the first inputs")] = "kmeans",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = (first_size or codebook_size, *((codebook_size,) * (levels - 1)))
        self.depth = min(depth, levels) or levels
        self.step_db, self.floor_db = step_db, floor_db
        self.beam, self.start_tokens = beam, start_tokens
        self.nearest = beam == 1
        self.level_dropout = level_dropout
        self.start: Start = start
        self.register_buffer("floor", torch.zeros(()))
        self.codebooks = nn.ModuleList(
            MovingCodebook(size, dim, decay=decay, revive_below=revive_below) for size in self.codebook_sizes
        )

    @property
    def initialised(self) -> bool:
        return all(book.is_ready for book in self.codebooks)

    def initialise(self, z: Tensor, mask: Tensor | None = None, *, seed: int = 0) -> None:
        """The floor from the tokens' mean energy; then level by level from what is left of the tokens that take it."""
        generator = torch.Generator().manual_seed(seed)
        most = max(self.codebook_sizes)
        wanted = max(points_wanted(most) * len(self.codebooks), self.start_tokens * most)
        points = starting_points(z, mask, wanted, generator)
        self.floor.copy_(points.square().mean() * 10 ** (self.floor_db / 10))
        for book, rest in self.fed_codebooks(points):
            some = torch.randperm(len(rest), generator=generator)[: points_wanted(book.codes.shape[0])]
            book.start(rest[some.to(rest.device)], self.start, generator)

    def fed_codebooks(self, tokens: Tensor) -> Iterator[tuple[Codebook, Tensor]]:
        entry, rest = self.entry(tokens), tokens.clone()
        for level, book in enumerate(self.codebooks):
            here = (entry <= level).nonzero().squeeze(1)
            if len(here) == 0:  # nothing is loud enough: take the loudest there are
                here = rest.square().sum(1).topk(min(len(rest), self.codebook_sizes[0])).indices
            yield book, rest[here]
            rest[here] -= book.look_up(book.search(rest[here]).codes, None)

    def entry(self, tokens: Tensor) -> Tensor:
        """The first level that each of `tokens` [N, d] takes [N]; as many as there are levels for none."""
        levels = len(self.codebooks)
        above = 10 * (tokens.square().mean(1) / self.floor).clamp_min(1e-30).log10() / self.step_db
        return levels - above.ceil().nan_to_num(0).clamp(0, levels).long()

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        with own_precision(z):
            tokens, real = flat(z, mask, self.codebooks[0].codes.dtype)
            found = self.codebooks[0].search(tokens.detach(), real)  # tells which tokens count
            valid = found.valid
            use = self.in_use(z, tokens.detach(), valid)
            paths = None if self.beam == 1 else best_paths(self.vectors(), tokens.detach(), use, self.beam)
            ladder = Ladder(tokens.detach(), use, paths, with_pull=z.requires_grad)
            stats = []
            for level, book in enumerate(self.codebooks):
                stats += ladder.step(book, level, keep=self.training)
            passed, commitment = pass_on(tokens, ladder.total, valid, ladder.squares, ladder.pairs, ladder.pull)
            return Quantized(
                z=passed.view(z.shape),
                codes=torch.stack(ladder.codes, 1).view(*z.shape[:2], len(self.codebook_sizes)),
                hard=ladder.total.view(z.shape),
                terms={"commitment": commitment, "rate": self.rate(tokens, valid)},
                stats=tuple(stats),
                not_finite=found.not_finite,
            )

    def in_use(self, z: Tensor, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Which levels each token takes [N, levels]."""
        level = torch.arange(len(self.codebooks), device=tokens.device)
        end = torch.full((z.shape[0],), self.depth, device=tokens.device)
        if self.training and self.level_dropout > 0:
            keys = row_keys(z.detach(), valid, self.codebooks[0].weights)
            fewer = (uniform(keys, 0) * self.depth).long() + 1
            end = torch.where(uniform(keys, 1) < self.level_dropout, fewer, end)
        use = (self.entry(tokens)[:, None] <= level) & (level < end.repeat_interleave(z.shape[1])[:, None])
        return use if valid is None else use & valid[:, None]

    def rate(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Bits per feature that the tokens would cost at the floor, if each were Gaussian."""
        if valid is not None:
            tokens = torch.where(valid[:, None], tokens, 0)
        bits = (tokens.square().mean(1) / self.floor).log1p().sum() / (2 * torch.log(torch.tensor(2.0)))
        return bits / max(1, len(tokens)) if valid is None else bits / valid.sum().clamp_min(1)

    def decode(self, codes: Tensor) -> Tensor:
        total = None
        for book, level in zip(self.codebooks, codes.reshape(-1, codes.shape[-1]).long().unbind(1), strict=False):
            vectors = book.look_up(level, level >= 0)
            total = vectors if total is None else total + vectors
        return total.view(*codes.shape[:2], self.dim)

    def vectors(self) -> tuple[Tensor, ...]:
        return tuple(book.codes.detach() for book in self.codebooks)

    def code_use(self) -> tuple[Tensor, ...]:
        return tuple(book.weights for book in self.codebooks)

    def update(self, stats: Sequence[CodebookStats]) -> None:
        for book, part in zip(self.codebooks, stats, strict=True):
            book.update(part)


class Ladder:
    """The way down the levels, of which every token takes those that `use` [N, levels] tells.

    Its code is the nearest of each level, or that of `paths` [N, levels] where these were searched before.
    """

    def __init__(self, tokens: Tensor, use: Tensor, paths: Tensor | None, *, with_pull: bool) -> None:
        self.rest, self.use, self.paths = tokens.clone(), use, paths
        self.total = torch.zeros_like(tokens)  # [N, D] the sum of the codes
        self.pull = torch.zeros_like(tokens) if with_pull else None  # [N, D] half the commitment's gradient
        self.squares = tokens.new_zeros(())
        self.pairs = use.sum() * tokens.shape[1]
        self.codes: list[Tensor] = []

    def step(self, book: MovingCodebook, level: int, *, keep: bool) -> list[CodebookStats]:
        """Take one level's codes away from the rest of the tokens that use it; its statistics, if to `keep`."""
        here = self.use[:, level]
        if torch.compiler.is_compiling():  # a graph wants fixed shapes: search for all
            at: Tensor | slice = slice(None)
            rest = self.rest
            found = book.search(rest, here) if self.paths is None else taken(self.paths[:, level], here)
        else:
            at = here.nonzero().squeeze(1)
            rest = self.rest[at]
            found = book.search(rest) if self.paths is None else taken(self.paths[at, level], None)
        vectors = book.look_up(found.codes, found.valid)
        stats = [book.stats(rest, found)] if keep else []
        left = rest - vectors
        codes = torch.full_like(here, -1, dtype=torch.long)
        codes[at] = found.codes
        self.codes.append(codes)
        self.rest[at] = left
        self.total[at] += vectors
        if isinstance(at, slice):
            left = left.masked_fill(~here[:, None], 0)
        self.squares = self.squares + left.square().sum()
        if self.pull is not None:
            self.pull[at] += left
        return stats


def taken(codes: Tensor, valid: Tensor | None) -> Found:
    """`codes` [n] that were searched before, of finite tokens, as the outcome of a search."""
    return Found(codes, valid, torch.zeros((), dtype=torch.long, device=codes.device))
