"""Levels of codebooks, each of which quantizes what the ones before left over; codes by moving average."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from vqtool.api import CodebookStats, Quantized, Quantizer
from vqtool.errors import VqtoolError
from vqtool.nn.codebook import Codebook, Found, Start
from vqtool.nn.draw import row_keys, uniform
from vqtool.nn.kmeans import points_wanted
from vqtool.nn.moving_average import MovingCodebook
from vqtool.nn.straight_through import pass_on
from vqtool.nn.subspace import SubspaceCodebook
from vqtool.nn.tokens import flat, own_precision, starting_points


class ResidualEMA(Quantizer):
    """Residual vector quantization (SoundStream, Zeghidour et al. 2021, section III.C).

    The gradient is straight-through once for the sum, not once per level, so its gain is 1 for any number of levels.
    Terms: `commitment`, the mean of (residual - code)^2 over valid tokens, features and levels that are not dropped;
    the residuals' codes are constants in it, so that every level pulls the encoder directly.
    Level dropout happens in training: a window that drops keeps its first 1 to `levels` levels, all equally likely;
    the codes of the others are -1. The draw is a hash of the window and the codebook: a second pass draws the same.
    """

    terms = frozenset({"commitment"})
    noun = "level"

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: Annotated[int, Gt(1), Doc("codes per level")] = 512,
        levels: Annotated[int, Ge(1), Doc("number of levels")] = 4,
        level_dropout: Annotated[float, Interval(ge=0, le=1), Doc("share of windows trained with fewer levels")] = 0.0,
        code_dim: Annotated[int, Ge(0), Doc("dimensions of a code, in a subspace of its level's own; 0: all")] = 0,
        decay: Annotated[float, Interval(ge=0, lt=1), Doc("share of the past in the moving average, per step")] = 0.99,
        revive_below: Annotated[float, Ge(0), Doc("revive codes used less than this share of uniform use")] = 0.1,
        start: Annotated[Start, Doc("first codes: k-means centres or random ones of the first inputs")] = "kmeans",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = (codebook_size,) * levels
        self.level_dropout = level_dropout
        self.start: Start = start
        if code_dim > dim:
            raise VqtoolError(f"codes of {code_dim} dimensions do not fit into a latent of {dim}")
        how = {"decay": decay, "revive_below": revive_below}
        self.codebooks = nn.ModuleList(
            SubspaceCodebook(codebook_size, dim, code_dim, **how)
            if code_dim
            else MovingCodebook(codebook_size, dim, **how)
            for _ in range(levels)
        )

    @property
    def initialised(self) -> bool:
        return all(book.is_ready for book in self.codebooks)

    def initialise(self, z: Tensor, mask: Tensor | None = None, *, seed: int = 0) -> None:
        """Level by level: each starts from what the levels before it, already started, leave over."""
        generator = torch.Generator().manual_seed(seed)
        points = starting_points(z, mask, points_wanted(self.codebook_sizes[0]), generator)
        for book, rest in self.fed_codebooks(points):
            book.start(rest, self.start, generator)

    def fed_codebooks(self, tokens: Tensor) -> Iterator[tuple[Codebook, Tensor]]:
        for book in self.codebooks:
            yield book, tokens
            found = book.search(tokens)
            tokens = tokens - book.look_up(found.codes, found.valid)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        with own_precision(z):
            tokens, real = flat(z, mask, self.codebooks[0].codes.dtype)
            with torch.no_grad():
                walk = Walk(tokens.detach(), with_pull=z.requires_grad)
                found = self.codebooks[0].search(walk.rest, real)
                kept = self.levels_kept(z, found.valid)
                not_finite, real = found.not_finite, found.valid
                stats = []
                for level, book in enumerate(self.codebooks):
                    if level > 0:
                        here = real if kept is None else both(real, (kept > level).repeat_interleave(z.shape[1]))
                        found = book.search(walk.rest, here)
                    if self.training:
                        stats.append(book.stats(walk.rest, found))
                    walk.step(book, found)
            passed, commitment = pass_on(tokens, walk.total, real, walk.squares, walk.pairs, walk.pull)
            return Quantized(
                z=passed.view(z.shape),
                codes=torch.stack(walk.codes, 1).view(*z.shape[:2], len(self.codebook_sizes)),
                hard=walk.total.view(z.shape),
                terms={"commitment": commitment},
                stats=tuple(stats),
                not_finite=not_finite,
            )

    def levels_kept(self, z: Tensor, valid: Tensor | None) -> Tensor | None:
        """How many levels each window of `z` keeps [B]; None: all."""
        if not self.training or self.level_dropout == 0:
            return None
        keys = row_keys(z.detach(), valid, self.codebooks[0].weights)
        levels = len(self.codebooks)
        fewer = (uniform(keys, 0) * levels).long() + 1
        return torch.where(uniform(keys, 1) < self.level_dropout, fewer, levels)

    def decode(self, codes: Tensor) -> Tensor:
        total = None
        for book, level in zip(self.codebooks, codes.reshape(-1, codes.shape[-1]).long().unbind(1), strict=False):
            vectors = book.look_up(level, level >= 0)
            total = vectors if total is None else total + vectors
        return total.view(*codes.shape[:2], self.dim)

    def vectors(self) -> tuple[Tensor, ...]:
        return tuple(book.vectors.detach() for book in self.codebooks)

    def code_use(self) -> tuple[Tensor, ...]:
        return tuple(book.weights for book in self.codebooks)

    def update(self, stats: Sequence[CodebookStats]) -> None:
        for book, part in zip(self.codebooks, stats, strict=True):
            book.update(part)


class Walk:
    """The way down the levels: what is left over, what was found, and the commitment of every step."""

    def __init__(self, tokens: Tensor, *, with_pull: bool) -> None:
        self.rest = tokens  # [N, D] what the levels so far leave over
        self.total: Tensor | None = None  # [N, D] the sum of their codes
        self.pull = torch.zeros_like(tokens) if with_pull else None  # [N, D] half the commitment's gradient
        self.squares = tokens.new_zeros(())
        self.pairs: Tensor | int = 0
        self.codes: list[Tensor] = []

    def step(self, book: Codebook, found: Found) -> None:
        """Take one level's codes away from the rest."""
        vectors = book.look_up(found.codes, found.valid)
        self.codes.append(found.codes)
        if self.total is None:  # from here on both are our own, to be changed in place
            self.rest, self.total = self.rest - vectors, vectors
        else:
            self.rest.sub_(vectors)
            self.total.add_(vectors)
        left = self.rest if found.valid is None else self.rest.masked_fill(~found.valid[:, None], 0)
        self.squares = self.squares + torch.dot(left.view(-1), left.view(-1))
        self.pairs = self.pairs + (left.numel() if found.valid is None else found.valid.sum() * left.shape[1])
        if self.pull is not None:
            self.pull.add_(left)


def both(first: Tensor | None, second: Tensor) -> Tensor:
    """Where both hold; None stands for everywhere."""
    return second if first is None else first & second
