"""Experts of different sizes: a router gives each window the one that all its tokens take."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated

import torch
from annotated_doc import Doc
from torch import Tensor, nn

from vqtool.api import Nested, Route
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.composable import Coded, Composable, Layout, Make
from vqtool.quantizers.core.topology import Topology, made, mean_terms
from vqtool.quantizers.estimators.straight_through import AddGradient
from vqtool.quantizers.vq import VQ, Weights, plain

EXPERTS = tuple(partial(VQ, codebook_size=size) for size in (16, 64, 256))


class Router(nn.Module):
    """A linear map of the mean and the spread of a window's tokens to logits of R experts.

    It reads latents and pulls at none: its gradient ends here. What it reads is standardised over the features, so that
    a growing latent does not make it sure of itself. Of equal logits the first one counts.
    """

    def __init__(self, dim: int, experts: int) -> None:
        super().__init__()
        self.logits = nn.Linear(2 * dim, experts)

    def forward(self, tokens: Tensor, real: Tensor) -> Route:
        """Route windows `tokens` [B, T, D]; those that do not count, by `real` [B, T], hold zeros."""
        logits = self.logits(features_of(tokens.detach(), real))
        return Route(logits.argmax(1), logits.softmax(1))


class Routed(Topology):
    """A mixture of experts, each a quantizer; a window takes the likeliest of them alone.

        self.vq = Routed(32, of=[partial(VQ, codebook_size=16), partial(VQ, codebook_size=256)])

    Codes have columns for each expert, -1 but for the one taken. The latents get the straight-through gradient, with
    no share of the router's; the router learns from what another expert would have passed on: its probabilities p_r
    get the gradient of sum_r p_r e_r(z), e_r(z) being the code vector of expert r.
    Terms: `commitment`, the mean of (z - code)^2; `balance`, R sum_r f_r P_r with the share f of windows that took an
    expert and its mean probability P (Fedus et al. 2021, arXiv 2101.03961, equation 4), 1 where the load is even and R
    where one takes all.
    """

    terms = frozenset({"commitment", "balance"})
    topology = "routed"
    old_names = ((r"^codebooks\.(\d+)\.", r"experts.\1.codebook."),)

    def __init__(
        self,
        dim: int,
        layout: Layout = "BTD",
        weights: Weights = None,
        router: Callable[[int, int], Router] = Router,
        *,
        of: Annotated[Sequence[Make], Nested("quantizer", many=True), Doc("the experts, two or more")] = EXPERTS,
    ) -> None:
        super().__init__(dim, layout, weights)
        if not isinstance(of, Sequence) or len(of) < 2:
            raise VqtoolError("`of` needs two experts or more", hint="a list: of = [{ kind = ... }, { kind = ... }]")
        self.experts = nn.ModuleList(made(make, dim) for make in of)
        self.adopt(self.experts, "commitment", "balance")
        self.router = router(dim, len(of))
        self.straight_through = self.estimator.identity

    def inputs_of_parts(self, tokens: Tensor, *, starting: bool = False) -> Iterator[tuple[Composable, Tensor]]:
        """Tokens know no window, hence no route: any of them may reach any expert."""
        return zip(self.parts, itertools.repeat(tokens))

    def coded(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Coded:
        real = (tokens.new_ones(len(tokens), dtype=torch.bool) if valid is None else valid).view(shape)
        route = self.router(tokens.view(*shape, tokens.shape[1]), real)
        taken = route.expert.repeat_interleave(shape[1])
        each, nearest = zip(*(self.ask(r, tokens, valid, taken, shape) for r in range(len(self.parts))), strict=True)
        every = torch.stack(nearest, 1)  # [N, R, D]
        value = every.gather(1, taken[:, None, None].expand(-1, 1, self.dim)).squeeze(1)
        chosen = torch.stack([c.value for c in each]).sum(0) if any(c.value.requires_grad for c in each) else value
        counts = [(c.codes[:, 0] >= 0).sum() for c in each] if each[0].terms else ()
        terms = mean_terms([c.terms for c in each], counts) | {"balance": self.balance(route, real.any(1))}
        coded = Coded(
            codes=torch.cat([c.codes for c in each], 1),
            value=chosen,
            stats=tuple(s for c in each for s in c.stats),
            terms=terms,
            hard=value if chosen is not value else None,
            soft=None if any(c.soft is None for c in each) else torch.stack([c.soft for c in each]).sum(0),
            route=route,
        )
        if route.expert_probs.requires_grad:
            self.finished(tokens, coded, valid)
            every = every.view(*shape, len(self.parts), self.dim)
            mixed = torch.einsum("br,btrd->btd", route.expert_probs, every).reshape(value.shape)
            coded.value = AddGradient.apply(mixed, coded.value)
        return coded

    def ask(
        self, r: int, tokens: Tensor, valid: Tensor | None, taken: Tensor, shape: tuple[int, int]
    ) -> tuple[Coded, Tensor]:
        """What expert `r` makes of the tokens that take it, by `taken` [N], and its code vectors [N, D] for all."""
        here = taken == r if valid is None else valid & (taken == r)
        expert, x = self.parts[r], tokens.detach()
        if plain(expert):  # one search does for both
            codes = expert.chosen(x, valid)
            taken = codes.masked_fill(~here, -1)
            return expert.coded(x, here, shape, taken), expert.codebook.look_up(codes, valid)
        with torch.no_grad():
            every = expert.code(x, valid, shape).vectors
        return expert.code(x, here, shape), every

    def balance(self, route: Route, real: Tensor) -> Tensor:
        """The balance of the experts over the windows that are `real` [B]."""
        return balance(route.expert_probs, route.expert, real)

    def code_use(self) -> None:
        """Not known, as files of codes of this kind were written without it."""


def features_of(tokens: Tensor, real: Tensor) -> Tensor:
    """The mean and the standard deviation over the real tokens of each window, each standardised [B, 2 D]."""
    count, some = real.sum(1).clamp_min(1)[:, None], real[..., None]
    mean = tokens.sum(1) / count
    away = (tokens - mean[:, None]) * some
    return torch.cat([standardised(mean), standardised((away.square().sum(1) / count).sqrt())], 1)


def standardised(x: Tensor) -> Tensor:
    """`x` [B, D] with a mean of 0 and a variance of 1 over D; zeros where all are equal."""
    x = x - x.mean(1, keepdim=True)
    return x / x.square().mean(1, keepdim=True).sqrt().clamp_min(torch.finfo(x.dtype).tiny)


def balance(probs: Tensor, chosen: Tensor, real: Tensor) -> Tensor:
    """R sum_r f_r P_r of `probs` [B, R] over the windows that are `real` [B]; 1 at least where the load is even.

    f_r is the share of windows that chose r (a constant), P_r the mean probability of r: the auxiliary loss of the
    Switch Transformer (Fedus et al. 2021, arXiv 2101.03961, equations 4 to 6) without its weight.
    """
    count = real.sum().clamp_min(1)
    share = (torch.nn.functional.one_hot(chosen, probs.shape[1]) * real[:, None]).sum(0) / count
    mean = (probs * real[:, None]).sum(0) / count
    return probs.shape[1] * (share * mean).sum()
