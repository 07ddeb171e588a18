"""A mixture of codebooks of different sizes: a router gives each window the one that all its tokens take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval, MinLen
from torch import Tensor, nn

from vqtool.api import CodebookStats, Quantized, Quantizer, Route
from vqtool.nn.codebook import Codebook, Found, Start
from vqtool.nn.kmeans import points_wanted
from vqtool.nn.moving_average import MovingCodebook
from vqtool.nn.router import Router, balance
from vqtool.nn.straight_through import Carry, pass_on, squared_distance
from vqtool.nn.tokens import cleaned, entries, flat, own_precision, starting_points


class MixtureEMA(Quantizer):
    """Experts are codebooks of `codebook_sizes` codes by moving average; a window takes the likeliest of them alone.

    Codes have a column for each expert, -1 but for the one taken. The router chooses among `modes` ways to send the
    codes besides, for a channel that has several. The latents get the straight-through gradient, with no share of the
    router's; the router learns from what another expert would have passed on: its probabilities p_r get the gradient
    of sum_r p_r e_r(z), e_r(z) being the nearest code of expert r.
    Terms: `commitment`, the mean of (z - code)^2; `balance`, R sum_r f_r P_r with the share f of windows that took an
    expert and its mean probability P (Fedus et al. 2021, equation 4), 1 where the load is even and R where one takes
    all; with several modes, the mean of that over experts and over modes.
    """

    terms = frozenset({"commitment", "balance"})
    noun = "expert"

    def __init__(
        self,
        dim: int,
        *,
        codebook_sizes: Annotated[
            tuple[Annotated[int, Gt(1)], ...], MinLen(2), Doc("codes of each expert's codebook")
        ] = (16, 64, 256),
        modes: Annotated[int, Ge(1), Doc("ways to send the codes that the router chooses among")] = 1,
        decay: Annotated[float, Interval(ge=0, lt=1), Doc("share of the past in the moving average, per step")] = 0.99,
        revive_below: Annotated[float, Ge(0), Doc("revive codes used less than this share of uniform use")] = 0.1,
        start: Annotated[Start, Doc("first codes: k-means centres or random ones of the first inputs")] = "kmeans",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = tuple(codebook_sizes)
        self.start: Start = start
        self.router = Router(dim, len(codebook_sizes), modes)
        self.codebooks = nn.ModuleList(
            MovingCodebook(size, dim, decay=decay, revive_below=revive_below) for size in codebook_sizes
        )

    @property
    def initialised(self) -> bool:
        return all(book.is_ready for book in self.codebooks)

    def initialise(self, z: Tensor, mask: Tensor | None = None, *, seed: int = 0) -> None:
        """Every codebook from all tokens: none is anyone's yet."""
        generator = torch.Generator().manual_seed(seed)
        points = starting_points(z, mask, points_wanted(max(self.codebook_sizes)), generator)
        for book, tokens in self.fed_codebooks(points):
            book.start(tokens, self.start, generator)

    def fed_codebooks(self, tokens: Tensor) -> Iterator[tuple[Codebook, Tensor]]:
        """Tokens know no window, hence no route: any of them may reach any expert."""
        for book in self.codebooks:
            yield book, tokens

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        with own_precision(z):
            tokens, valid, not_finite = cleaned(*flat(z, mask, self.codebooks[0].codes.dtype))
            real = real_tokens(z, valid)
            route = self.router(tokens.view(z.shape), real)
            taken = route.expert.repeat_interleave(z.shape[1])
            found, nearest = zip(
                *(self.found(r, tokens, valid, taken) for r in range(len(self.codebooks))), strict=True
            )
            every = torch.stack(nearest, 1)  # [N, R, D]
            value = every.gather(1, taken[:, None, None].expand(-1, 1, self.dim)).squeeze(1)
            squares = squared_distance(tokens, value, valid)
            passed, commitment = pass_on(tokens, value, valid, squares, entries(tokens, valid))
            passed = passed.view(z.shape)
            if route.expert_probs.requires_grad:
                every = every.view(*z.shape[:2], len(self.codebook_sizes), self.dim)
                passed = Carry.apply(torch.einsum("br,btrd->btd", route.expert_probs, every), passed)
            return Quantized(
                z=passed,
                codes=torch.stack([f.codes for f in found], 1).view(*z.shape[:2], len(self.codebook_sizes)),
                hard=value.view(z.shape),
                terms={"commitment": commitment, "balance": self.balance(route, real.any(1))},
                stats=tuple(b.stats(tokens, f) for b, f in zip(self.codebooks, found, strict=True))
                if self.training
                else (),
                not_finite=not_finite,
                route=route,
            )

    def found(self, expert: int, tokens: Tensor, valid: Tensor | None, taken: Tensor) -> tuple[Found, Tensor]:
        """What an expert finds for the tokens that take it, by `taken` [N], and its nearest code [N, D] for all."""
        book = self.codebooks[expert]
        found = book.search(tokens, valid)
        here = taken == expert if found.valid is None else (taken == expert) & found.valid
        return Found(found.codes.masked_fill(~here, -1), here, found.not_finite), book.look_up(found.codes, found.valid)

    def balance(self, route: Route, real: Tensor) -> Tensor:
        """The mean balance of whatever there is to choose."""
        both = ((route.expert_probs, route.expert), (route.mode_probs, route.mode))
        each = [balance(probs, chosen, real) for probs, chosen in both if probs.shape[1] > 1]
        return torch.stack(each).mean()

    def decode(self, codes: Tensor) -> Tensor:
        total = None
        for book, column in zip(self.codebooks, codes.reshape(-1, codes.shape[-1]).long().unbind(1), strict=False):
            vectors = book.look_up(column, column >= 0)
            total = vectors if total is None else total + vectors
        return total.view(*codes.shape[:2], self.dim)

    def vectors(self) -> tuple[Tensor, ...]:
        return tuple(book.codes.detach() for book in self.codebooks)

    def update(self, stats: Sequence[CodebookStats]) -> None:
        for book, part in zip(self.codebooks, stats, strict=True):
            book.update(part)


def real_tokens(z: Tensor, valid: Tensor | None) -> Tensor:
    """Which tokens of `z` [B, T, D] count [B, T], from `valid` [N] (None: all)."""
    return torch.ones(z.shape[:2], dtype=torch.bool, device=z.device) if valid is None else valid.view(z.shape[:2])
