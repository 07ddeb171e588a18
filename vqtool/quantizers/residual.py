"""Levels of quantizers, each of which quantizes what the ones before left over."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import Nested
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.checked import preset
from vqtool.quantizers.core.codebook import Started
from vqtool.quantizers.core.composable import Coded, Composable, Layout, Make, both
from vqtool.quantizers.core.draw import row_keys, uniform
from vqtool.quantizers.core.maps import Maps
from vqtool.quantizers.core.search import nearest_few
from vqtool.quantizers.core.topology import Topology, joined, made, mean_terms
from vqtool.quantizers.vq import AVERAGE, VQ, Weights, plain

Levels = Annotated[int, Ge(1), Doc("number of levels")]
Dropout = Annotated[float, Interval(ge=0, le=1), Doc("share of windows trained with fewer levels")]
Beam = Annotated[int, Ge(1), Doc("ways down the levels that a token keeps; 1: the nearest code of each")]
SCALES = (1.0, 1.5, 2.0, 2.5, 3.0)  # of a bounded level's range to the spread of its inputs
CHUNK = 2**11  # tokens at a time, so that the paths of a chunk stay in the cache


# kind: residual
class Residual(Topology):
    """Levels of quantizers, each of which quantizes what the ones before left over.

    Residual vector quantization (SoundStream, Zeghidour et al. 2021, arXiv 2107.03312, section III.C).

        self.rvq = Residual(128, levels=8, of=partial(VQ, codebook_size=1024), layout="BCL")
        z, codes, loss = self.rvq(latents)                       # codes [B, L, 8]
        coarse = self.rvq.decode(codes[..., :2])                 # the first two levels alone

    Levels may be of any kind; a list `of` gives each its own (a semantic level before acoustic ones, say). Those of a
    bounded kind (`fsq`, `lfq`) get a scale each, from what the levels before leave over.
    The gradient passes once for the sum, so its gain is 1 for any number of levels; a level's own gradient trains its
    own parameters alone. Terms: those of the levels, as means, and `commitment`, the mean of (residual - code)^2 over
    valid tokens, features and levels that are not dropped; the residuals' codes are constants in it.
    Level dropout happens in training: a window that drops keeps its first 1 to `levels` levels, all equally likely;
    the codes of the others are -1. The draw is a hash of the window and the codebook: a second pass draws the same.
    With `beam`, the path whose sum is closest is taken, in training and after it alike.
    """

    terms = frozenset({"commitment"})
    topology = "residual"
    old_names = ((r"^codebooks\.(\d+)\.", r"levels.\1.codebook."),)

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *,
        of: Annotated[Make | Sequence[Make], Nested("quantizer", many=True), Doc("a level, or a list of them")] = VQ,
        levels: Levels = 4,
        shared: Annotated[bool, Doc("all levels have one codebook")] = False,
        level_dropout: Dropout = 0.0, beam: Beam = 1,
        code_dim: Annotated[int, Ge(0), Doc("width that all levels work in, behind trained maps; 0: no maps")] = 0,
        maps: Annotated[Maps, Doc("these maps: affine has both biases, conv is a convolution")] = "learned",
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights, inside=code_dim, maps=maps)
        makers = list(of) if isinstance(of, Sequence) else [of] * (1 if shared else levels)
        self.levels = nn.ModuleList(made(make, code_dim or dim) for make in makers)
        self.adopt(list(self.levels) * (levels if shared else 1), "commitment")
        self.shared, self.level_dropout, self.beam = shared, level_dropout, beam
        self.scales = Scales(len(self.parts)) if any(level.bounded for level in self.parts) else None
        self.straight_through = self.estimator.identity and self.inwards is None
        self.nearest = self.nearest and beam == 1
        if beam > 1 and not all(plain(level) for level in self.parts):
            raise VqtoolError("`beam` needs levels of kind `vq` that choose the nearest code", hint="beam = 1")

    @property
    def initialised(self) -> bool:
        return super().initialised and (self.scales is None or self.scales.is_ready)

    def inputs_of_parts(self, tokens: Tensor, *, starting: bool = False) -> Iterator[tuple[Composable, Tensor]]:
        """Level by level what those before it leave over; a shared level once."""
        rest = tokens.clone()
        for i, level in enumerate(self.parts):
            here = self.rows_for_level(i, tokens, rest)
            if starting and self.scales is not None:
                self.scales.choose(i, level, rest[here])
            scale = 1 if self.scales is None else self.scales.values[i]
            inputs = rest[here] / scale
            if not (self.shared and i):
                yield level, inputs
            with torch.no_grad():
                rest[here] -= scale * level.code(inputs, None, (1, len(inputs))).vectors

    def rows_for_level(self, number: int, tokens: Tensor, rest: Tensor) -> Tensor | slice:
        """Which of `tokens` [N, inside] a level takes, of which `rest` is left over."""
        return slice(None)

    def placed(self, number: int, vectors: Tensor) -> Tensor:
        return vectors if self.scales is None else vectors * self.scales.values[number]

    def coded(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Coded:
        x = tokens.detach()
        use = self.levels_in_use(x, valid, shape)
        paths: Sequence[Tensor | None] = [None] * len(self.parts)
        if self.beam > 1:
            every = x.new_ones(len(x), len(self.parts), dtype=torch.bool) if use is None else use
            every = every if valid is None else every & valid[:, None]
            paths = best_paths(self.tables() or (), x, every, self.beam).unbind(1)
        wants_grad = tokens.requires_grad or (self.nested and torch.is_grad_enabled())
        steps = ResidualPass(x, valid, use, shape, wants_grad)
        for i, (level, path) in enumerate(zip(self.parts, paths, strict=True)):
            steps.take(level, i, None if self.scales is None else self.scales.values[i], path)
        return steps.outcome()

    def nearest_tables(self) -> tuple[Tensor, ...]:
        own, each = type(self), [level.nearest_tables() for level in self.parts]
        alike = len({(book.kind, book.codes.shape) for book in self.books}) == 1
        simple = (
            own.coded is Residual.coded and own.levels_in_use is Residual.levels_in_use
            and own.levels_kept is Residual.levels_kept and self.inwards is None and self.beam == 1
            and all(len(tables) == 1 for tables in each) and alike and self.estimator.identity
            and not (self.training and self.level_dropout)
        )  # fmt: skip
        return tuple(tables[0] for tables in each) if simple else ()

    def levels_in_use(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Tensor | None:
        """Which levels each token takes [N, levels]; None: all."""
        kept = self.levels_kept(tokens, valid, shape, len(self.parts))
        levels = torch.arange(len(self.parts), device=tokens.device)
        return None if kept is None else (levels < kept[:, None]).repeat_interleave(shape[1], 0)

    def levels_kept(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int], most: int) -> Tensor | None:
        """How many of `most` levels each window keeps [B]; None: all."""
        if not self.training or self.level_dropout == 0:
            return None
        books = self.parts[0].books
        state = tokens.new_zeros(1) if not books else books[0].weights if books[0].kind == "ema" else books[0].codes
        keys = row_keys(tokens.view(*shape, tokens.shape[1]), valid, state)
        fewer = (uniform(keys, 0) * most).long() + 1
        return torch.where(uniform(keys, 1) < self.level_dropout, fewer, most)


# kind: residual-ema
class ResidualEMA(Residual):
    """Levels of codebooks, each of which quantizes what the ones before left over; codes by moving average.

    `residual` of `vq`.
    """

    __init__ = preset(Residual, {"levels": 4, "level_dropout": 0.0},
                      of=(VQ, {"codebook_size": 512, "code_dim": 0, **AVERAGE}))  # fmt: skip


class Scales(Started):
    """The range [levels] of bounded levels, each fitted to what reaches it."""

    values: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.ones(levels))

    @torch.no_grad()
    def choose(self, number: int, level: Composable, rest: Tensor) -> None:
        """The scale, of a few times the spread of `rest` [N, D], that leaves the least error; 1 if it has codebooks."""
        if level.bounded:
            tried = [rest.square().mean().sqrt().clamp_min(1e-12) * many for many in SCALES]
            left = [rest - s * level.code(rest / s, None, (1, len(rest))).vectors for s in tried]
            self.values[number] = tried[int(torch.stack([x.square().mean() for x in left]).argmin())]
        self.set_ready()


class ResidualPass:
    """The way down the levels: what is left over, the sum of the codes, and the commitment of every step.

    Where tokens skip levels, by `use` [N, levels], a CPU computes with those that do not; accelerators and compiled
    graphs, which want fixed shapes, with all and a mask.
    """

    def __init__(
        self, tokens: Tensor, valid: Tensor | None, use: Tensor | None, shape: tuple[int, int], wants_grad: bool
    ) -> None:
        self.valid, self.use, self.shape = valid, use, shape
        self.picks = use is not None and tokens.device.type == "cpu" and not torch.compiler.is_compiling()
        self.rest = tokens.clone() if self.picks else tokens  # [N, D] what the levels so far leave over
        self.total = self.value = torch.zeros_like(tokens) if self.picks else None  # [N, D] the sum of their codes
        self.soft: Tensor | None = None
        self.commit_grad = torch.zeros_like(tokens) if wants_grad else None  # [N, D]
        self.sse = tokens.new_zeros(())
        self.n_values: Tensor | int = 0
        self.codes: list[Tensor] = []
        self.each: list[Coded] = []
        self.counts: list[Tensor | int] = []  # tokens that each level had

    def take(self, level: Composable, number: int, scale: Tensor | None, path: Tensor | None) -> None:
        """Quantize the rest by one level, or by its codes `path` [N], and take its code vectors away."""
        seen = self.valid if self.use is None else both(self.valid, self.use[:, number])
        at = None
        if self.picks and seen is not None:
            at = None if bool(seen.all()) else seen.nonzero().squeeze(1)
            seen = None
        part = self.rest if at is None else self.rest[at]
        inputs = part if scale is None else part / scale
        if path is None:
            coded = level.code(inputs, seen, self.shape if at is None else (1, len(at)))
        else:
            assert isinstance(level, VQ)  # as the constructor demands
            coded = level.coded(inputs, seen, self.shape, path if at is None else path[at])
        vectors, value = coded.vectors, coded.value
        if scale is not None:
            vectors, value = vectors * scale, value * scale
        keeps = number == 0 or coded.terms or value.requires_grad  # the first are the caller's, others a backward's
        left = part - vectors if keeps else part.sub_(vectors)
        self.each.append(coded)
        self.codes.append(self.spread(coded.codes, at, -1))
        self.counts.append(len(left) if seen is None else seen.sum())
        if coded.soft is not None:
            soft = self.spread(coded.soft, at, 0)
            self.soft = soft if self.soft is None else self.soft + soft
        self.add(vectors, value, left, at, value.requires_grad or coded.hard is not None)
        self.commit(coded, left, at, seen)

    def spread(self, rows: Tensor, at: Tensor | None, other: int) -> Tensor:
        """`rows` [n, ...] of the tokens `at` [n], `other` for those that are not among them [N, ...]."""
        if at is None:
            return rows
        return rows.new_full((len(self.rest), *rows.shape[1:]), other).index_copy(0, at, rows)

    def add(self, vectors: Tensor, value: Tensor, left: Tensor, at: Tensor | None, differs: bool) -> None:
        """Add a level's `vectors` [n, D] to the sum, and `value` to what flows on, if that `differs`."""
        differs = differs or self.value is not self.total
        if at is not None:
            self.rest[at] = left
            flows = self.value.index_add(0, at, value) if differs else None  # type: ignore[union-attr]  # zeros where it picks
            self.total[at] += vectors  # type: ignore[index]  # zeros where it picks
        else:
            self.rest = left
            flows = (value if self.value is None else self.value + value) if differs else None
            first = vectors.clone() if differs else vectors
            self.total = first if self.total is None else self.total.add_(vectors)
        self.value = self.total if flows is None else flows

    def commit(self, coded: Coded, left: Tensor, at: Tensor | None, seen: Tensor | None) -> None:
        """Add the commitment of a level, or of the levels that it has itself."""
        if coded.sse is None or coded.complete or (coded.commit_grad is None and self.commit_grad is not None):
            left = left if seen is None else left.masked_fill(~seen[:, None], 0)
            self.sse = self.sse + torch.dot(left.view(-1), left.view(-1))
            self.n_values = self.n_values + self.counts[-1] * left.shape[1]
        else:
            self.sse, self.n_values = self.sse + coded.sse, self.n_values + coded.n_values
            left = left if coded.commit_grad is None else coded.commit_grad
        if self.commit_grad is not None and at is None:
            self.commit_grad.add_(left)
        elif self.commit_grad is not None:
            self.commit_grad[at] += left

    def outcome(self) -> Coded:
        """All levels together."""
        return Coded(
            codes=torch.cat(self.codes, 1),
            value=self.value,  # type: ignore[arg-type]  # there is one level at least
            stats=tuple(s for coded in self.each for s in coded.stats),
            terms=mean_terms([coded.terms for coded in self.each], self.counts),
            sse=self.sse,
            n_values=self.n_values,
            commit_grad=self.commit_grad,
            hard=None if self.value is self.total else self.total,
            soft=self.soft,
            probs=None if self.picks else joined(self.each),
        )


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
