"""Experts of different sizes: a router gives each window the one that all its tokens take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated

import torch
from annotated_doc import Doc
from torch import Tensor, nn

from vqtool.api import Nested, Route
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.composable import Coded, Make, Topology, made, mean_terms
from vqtool.quantizers.core.router import Router, balance
from vqtool.quantizers.core.straight_through import AddGradient
from vqtool.quantizers.core.tokens import Layout, both
from vqtool.quantizers.vq import VQ, Weights, plain

EXPERTS = tuple(partial(VQ, codebook_size=size) for size in (16, 64, 256))


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
    noun = "expert"
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
        self.adopt(list(self.experts))  # type: ignore[arg-type]
        self.terms = self.terms | {"commitment", "balance"}
        self.router = router(dim, len(of))
        self.straight_through = self.estimator.identity
        self.nearest = all(expert.nearest for expert in self.experts)

    @property
    def codebook_names(self) -> tuple[str, ...]:
        return tuple(
            f"expert{i}" + (f".{name}" if len(expert.codebook_sizes) > 1 else "")
            for i, expert in enumerate(self.experts)
            for name in expert.codebook_names
        )

    def start_from(self, points: Tensor, generator: torch.Generator) -> None:
        """Every expert from all tokens: none is anyone's yet."""
        for expert in self.experts:
            expert.start_on_points(points, generator)

    def codebooks_with_inputs(self, tokens: Tensor) -> Iterator[tuple[nn.Module, Tensor]]:
        """Tokens know no window, hence no route: any of them may reach any expert."""
        for expert in self.experts:
            yield from expert.codebooks_with_inputs(tokens)

    def coded(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Coded:
        real = (tokens.new_ones(len(tokens), dtype=torch.bool) if valid is None else valid).view(shape)
        route = self.router(tokens.view(*shape, tokens.shape[1]), real)
        taken = route.expert.repeat_interleave(shape[1])
        each, nearest = zip(*(self.ask(r, tokens, valid, taken, shape) for r in range(len(self.experts))), strict=True)
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
            coded.value, coded.terms = self.pass_gradient(tokens, coded, valid)
            every = every.view(*shape, len(self.experts), self.dim)
            mixed = torch.einsum("br,btrd->btd", route.expert_probs, every).reshape(value.shape)
            coded.value, coded.complete = AddGradient.apply(mixed, coded.value), True
        return coded

    def ask(
        self, r: int, tokens: Tensor, valid: Tensor | None, taken: Tensor, shape: tuple[int, int]
    ) -> tuple[Coded, Tensor]:
        """What expert `r` makes of the tokens that take it, by `taken` [N], and its code vectors [N, D] for all."""
        expert, here, x = self.experts[r], both(valid, taken == r), tokens.detach()
        if plain(expert):  # one search does for both
            codes = expert.chosen(x, valid)
            return expert.taken(x, codes.masked_fill(~here, -1), here), expert.codebook.look_up(codes, valid)
        with torch.no_grad():
            every = expert.code(x, valid, shape).vectors
        return expert.code(x, here, shape), every

    def balance(self, route: Route, real: Tensor) -> Tensor:
        """The balance of the experts over the windows that are `real` [B]."""
        return balance(route.expert_probs, route.expert, real)

    def decoded(self, codes: Tensor) -> Tensor:
        total, at = None, 0
        for expert in self.experts:
            some = codes[:, at : at + len(expert.codebook_sizes)]
            at += len(expert.codebook_sizes)
            if some.shape[1]:
                value = expert.decode_tokens(some)
                total = value if total is None else total + value
        return total

    def tables(self) -> tuple[Tensor, ...] | None:
        each = [expert.vectors() for expert in self.experts]
        return None if any(one is None for one in each) else tuple(t for one in each for t in one or ())
