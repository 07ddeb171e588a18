"""Levels of quantizers, each of which quantizes what the ones before left over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Interval
from torch import Tensor, nn

from vqtool.api import CodebookStats, Nested
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.beam import best_paths
from vqtool.quantizers.core.codebook import Started
from vqtool.quantizers.core.composable import Coded, Composable, Make, Topology, joined, made, mean_terms
from vqtool.quantizers.core.draw import row_keys, uniform
from vqtool.quantizers.core.tokens import Layout, both
from vqtool.quantizers.vq import VQ, Weights, plain

Levels = Annotated[int, Ge(1), Doc("number of levels")]
Dropout = Annotated[float, Interval(ge=0, le=1), Doc("share of windows trained with fewer levels")]
Beam = Annotated[int, Ge(1), Doc("ways down the levels that a token keeps; 1: the nearest code of each")]
SCALES = (1.0, 1.5, 2.0, 2.5, 3.0)  # of a bounded level's range to the spread of its inputs


class Residual(Topology):
    """Residual vector quantization (SoundStream, Zeghidour et al. 2021, arXiv 2107.03312, section III.C).

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
    noun = "level"
    old_names = ((r"^codebooks\.(\d+)\.", r"levels.\1.codebook."),)

    def __init__(
        self,
        dim: int,
        layout: Layout = "BTD",
        weights: Weights = None,
        *,
        of: Annotated[Make | Sequence[Make], Nested("quantizer", many=True), Doc("a level, or a list of them")] = VQ,
        levels: Levels = 4,
        shared: Annotated[bool, Doc("all levels have one codebook")] = False,
        level_dropout: Dropout = 0.0,
        beam: Beam = 1,
        code_dim: Annotated[int, Ge(0), Doc("width that all levels work in, behind trained maps; 0: no maps")] = 0,
    ) -> None:
        super().__init__(dim, layout, weights, inside=code_dim)
        makers = list(of) if isinstance(of, Sequence) else [of] * (1 if shared else levels)
        self.levels = nn.ModuleList(made(make, code_dim or dim) for make in makers)
        self.ways: list[Composable] = list(self.levels) * (levels if shared else 1)  # type: ignore[arg-type]
        self.adopt(self.ways)
        self.terms = self.terms | {"commitment"}
        self.shared, self.level_dropout, self.beam = shared, level_dropout, beam
        self.scales = Scales(len(self.ways)) if any(level.bounded for level in self.ways) else None
        self.straight_through = self.estimator.identity and self.inwards is None
        self.nearest = beam == 1 and self.inwards is None and all(level.nearest for level in self.ways)
        if beam > 1 and not all(plain(level) for level in self.ways):
            raise VqtoolError("`beam` needs levels of kind `vq` that choose the nearest code", hint="beam = 1")

    @property
    def codebook_names(self) -> tuple[str, ...]:
        return tuple(
            f"level{i}" + (f".{name}" if len(level.codebook_sizes) > 1 else "")
            for i, level in enumerate(self.ways)
            for name in level.codebook_names
        )

    @property
    def initialised(self) -> bool:
        return super().initialised and (self.scales is None or self.scales.is_ready)

    def start_from(self, points: Tensor, generator: torch.Generator) -> None:
        """Level by level: each starts from what the levels before it, already started, leave over."""
        for i, (level, rest) in enumerate(self.fed(points)):
            if self.scales is not None:
                self.scales.choose(i, level, rest)
                rest = rest / self.scales.values[i]
            if not (self.shared and i):
                level.start_on_points(rest, generator)

    def fed(self, tokens: Tensor) -> Iterator[tuple[Composable, Tensor]]:
        """Each level and what reaches it [N, inside]; it may change before the next is asked for."""
        for i, level in enumerate(self.ways):
            yield level, tokens
            scale = 1 if self.scales is None else self.scales.values[i]
            with torch.no_grad():
                tokens = tokens - scale * level.code(tokens / scale, None, (1, len(tokens))).vectors

    def codebooks_with_inputs(self, tokens: Tensor) -> Iterator[tuple[nn.Module, Tensor]]:
        tokens = tokens if self.inwards is None else self.inwards(tokens).detach()
        for i, (level, rest) in enumerate(self.fed(tokens)):
            if not (self.shared and i):
                yield from level.codebooks_with_inputs(rest)

    def coded(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Coded:
        x = tokens.detach()
        use = self.levels_in_use(x, valid, shape)
        paths = None
        if self.beam > 1:
            every = x.new_ones(len(x), len(self.ways), dtype=torch.bool) if use is None else use
            every = every if valid is None else every & valid[:, None]
            paths = best_paths(self.tables(), x, every, self.beam)
        wants_grad = tokens.requires_grad or (self.nested and torch.is_grad_enabled())
        steps = ResidualPass(x, wants_grad, valid, use, paths, shape)
        for i, level in enumerate(self.ways):
            steps.take(level, i, 1 if self.scales is None else self.scales.values[i])
        return steps.outcome()

    def levels_in_use(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Tensor | None:
        """Which levels each token takes [N, levels]; None: all."""
        kept = self.levels_kept(tokens, valid, shape, len(self.ways))
        if kept is None:
            return None
        levels = torch.arange(len(self.ways), device=tokens.device)
        return (levels < kept[:, None]).repeat_interleave(shape[1], 0)

    def levels_kept(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int], most: int) -> Tensor | None:
        """How many of `most` levels each window keeps [B]; None: all."""
        if not self.training or self.level_dropout == 0:
            return None
        first = next((m for m in self.ways[0].modules() if isinstance(m, VQ)), None)
        state = tokens.new_zeros(1) if first is None else (first.code_use() or (first.codebook.codes,))[0]
        keys = row_keys(tokens.view(*shape, tokens.shape[1]), valid, state)
        fewer = (uniform(keys, 0) * most).long() + 1
        return torch.where(uniform(keys, 1) < self.level_dropout, fewer, most)

    def decoded(self, codes: Tensor) -> Tensor:
        total, at = None, 0
        for i, level in enumerate(self.ways):
            some = codes[:, at : at + len(level.codebook_sizes)]
            at += len(level.codebook_sizes)
            if some.shape[1]:
                value = level.decode_tokens(some)
                value = value if self.scales is None else value * self.scales.values[i]
                total = value if total is None else total + value
        return total

    def tables(self) -> tuple[Tensor, ...] | None:
        each = [level.vectors() for level in self.ways]
        if self.scales is not None or any(one is None for one in each):
            return None
        return tuple(table for one in each for table in one or ())

    def code_use(self) -> tuple[Tensor, ...] | None:
        each = [level.code_use() for level in self.ways]
        return None if any(one is None for one in each) else tuple(use for one in each for use in one or ())

    def follow(self, stats: list[CodebookStats]) -> None:
        if not self.shared:
            return super().follow(stats)
        count = len(self.ways[0].no_stats())
        each = [[stats.pop(0) for _ in range(count)] for _ in self.ways]
        for more in each[1:]:
            each[0] = [a + b for a, b in zip(each[0], more, strict=True)]
        return self.ways[0].follow(each[0])

    def no_stats(self) -> tuple[CodebookStats, ...]:
        return tuple(s for level in self.ways for s in level.no_stats())


class Scales(Started):
    """The range [levels] of bounded levels, each fitted to what reaches it."""

    values: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.ones(levels))

    @torch.no_grad()
    def choose(self, level: int, quantizer: Composable, rest: Tensor) -> None:
        """The scale, of a few times the spread of `rest` [N, D], that leaves the least error; 1 if it has codebooks."""
        if quantizer.bounded:
            spread = rest.square().mean().sqrt().clamp_min(1e-12)
            tried = [spread * many for many in SCALES]
            errors = [
                (rest - s * quantizer.code(rest / s, None, (1, len(rest))).vectors).square().mean() for s in tried
            ]
            self.values[level] = tried[int(torch.stack(errors).argmin())]
        self.set_ready()


class ResidualPass:
    """The way down the levels: what is left over, the sum of the codes, and the commitment of every step.

    Where tokens skip levels, by `use` [N, levels], a CPU computes with those that do not; accelerators and compiled
    graphs, which want fixed shapes, with all and a mask.
    """

    def __init__(
        self, tokens: Tensor, wants_grad: bool, valid: Tensor | None, use: Tensor | None, paths: Tensor | None,
        shape: tuple[int, int],
    ) -> None:  # fmt: skip
        self.valid, self.use, self.paths, self.shape = valid, use, paths, shape
        self.picks = use is not None and tokens.device.type == "cpu" and not torch.compiler.is_compiling()
        self.rest = tokens.clone() if self.picks else tokens  # [N, D] what the levels so far leave over
        self.total = self.value = torch.zeros_like(tokens) if self.picks else None  # [N, D] the sum of their codes
        self.soft: Tensor | None = None
        self.commit_grad = torch.zeros_like(tokens) if wants_grad else None  # [N, D]
        self.sse, self.n_values = tokens.new_zeros(()), 0
        self.codes: list[Tensor] = []
        self.each: list[Coded] = []
        self.counts: list[Tensor | int] = []  # tokens that each level had

    def take(self, level: Composable, number: int, scale: Tensor | int) -> None:
        """Quantize the rest by one level and take its codes away."""
        here = self.valid if self.use is None else both(self.valid, self.use[:, number])
        at = here.nonzero().squeeze(1) if self.picks and not bool(here.all()) else None
        here = None if self.picks and at is None else here
        part, seen, shape = (self.rest, here, self.shape) if at is None else (self.rest[at], None, (1, len(at)))
        plain = isinstance(scale, int)
        inputs = part if plain else part / scale
        if self.paths is None:
            coded = level.code(inputs, seen, shape)
        else:
            column = self.paths[:, number] if at is None else self.paths[at, number]
            coded = level.taken(inputs, column, seen)  # type: ignore[attr-defined]
        vectors, value = (coded.vectors, coded.value) if plain else (coded.vectors * scale, coded.value * scale)
        kept = number == 0 or coded.terms or value.requires_grad  # the first are the caller's, others a backward's
        left = part - vectors if kept else part.sub_(vectors)
        self.each.append(coded)
        if coded.soft is not None:
            soft = coded.soft if at is None else torch.zeros_like(self.rest).index_copy(0, at, coded.soft)
            self.soft = soft if self.soft is None else self.soft + soft
        self.add(vectors, value, left, at, value.requires_grad or coded.hard is not None)
        self.codes.append(coded.codes if at is None else self.spread(coded.codes, at))
        self.counts.append(len(left) if seen is None else seen.sum())
        self.commit(coded, left, at, seen)

    def commit(self, coded: Coded, left: Tensor, at: Tensor | None, seen: Tensor | None) -> None:
        """Add the commitment of a level, or of the levels that it has itself."""
        if coded.sse is None or coded.complete or (coded.commit_grad is None and self.commit_grad is not None):
            if seen is not None:
                left = left.masked_fill(~seen[:, None], 0)
            self.sse = self.sse + torch.dot(left.view(-1), left.view(-1))
            self.n_values = self.n_values + self.counts[-1] * left.shape[1]
        else:
            self.sse, self.n_values = self.sse + coded.sse, self.n_values + coded.n_values
            left = left if coded.commit_grad is None else coded.commit_grad
        if self.commit_grad is not None and at is None:
            self.commit_grad.add_(left)
        elif self.commit_grad is not None:
            self.commit_grad[at] += left

    def add(self, vectors: Tensor, value: Tensor, left: Tensor, at: Tensor | None, apart: bool) -> None:
        """Add a level's `vectors` [n, D] to the sum, and `value` to what flows on, if that is something `apart`."""
        apart = apart or self.value is not self.total
        if at is not None:
            self.rest[at] = left
            own = self.value.index_add(0, at, value) if apart else None
            self.total[at] += vectors
        else:
            self.rest = left
            own = (value if self.value is None else self.value + value) if apart else None
            if self.total is None:
                self.total = vectors.clone() if apart else vectors
            else:
                self.total = self.total.add_(vectors)
        self.value = self.total if own is None else own

    def spread(self, codes: Tensor, at: Tensor) -> Tensor:
        """`codes` [n, Q] of the tokens `at` [n], -1 for the others [N, Q]."""
        return codes.new_full((len(self.rest), codes.shape[1]), -1).index_copy_(0, at, codes)

    def outcome(self) -> Coded:
        """All levels together."""
        return Coded(
            codes=torch.cat(self.codes, 1),
            value=self.value,  # type: ignore[arg-type]
            stats=tuple(s for coded in self.each for s in coded.stats),
            terms=mean_terms([coded.terms for coded in self.each], self.counts),
            sse=self.sse,
            n_values=self.n_values,
            commit_grad=self.commit_grad,
            hard=None if self.value is self.total else self.total,
            soft=self.soft,
            probs=None if self.picks else joined(self.each),
        )
