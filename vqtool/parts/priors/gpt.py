"""Transformer over codes: causal self-attention with a cache, cross-attention to the condition, tied weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, cast

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from vqtool.api import Condition
from vqtool.errors import VqtoolError
from vqtool.layers.attention import Block, CompiledBlock, FilmNorm, KeyValues
from vqtool.sequence.code_prior import CodePrior, at_rest, taken


@dataclass(slots=True)
class State:
    """The state of a generation: the condition as the layers read it, and the steps already taken."""

    vector: Tensor | None  # [B, M]
    aside: Tensor | None  # [B, N, W]
    reads: list[tuple[Tensor, Tensor] | None]
    pasts: list[KeyValues]
    taken: int = 0
    single: list[CompiledBlock] = field(default_factory=list)  # the blocks, compiled for one step at a time

    def pick(self, rows: Tensor) -> None:
        """Let row b continue from the past of row `rows[b]`, which has the same condition."""
        for past in self.pasts:
            past.pick(rows)

    def spread(self, rows: Tensor) -> None:
        """Let row b continue from row `rows[b]` of this state, from its past and under its condition."""
        self.vector, self.aside = taken(self.vector, rows), taken(self.aside, rows)
        self.reads = [None if read is None else (read[0][rows], read[1][rows]) for read in self.reads]
        self.pick(rows)


class Gpt(CodePrior):
    """A pre-norm transformer in the manner of GPT-2 (Radford et al. 2019) over the flat sequence of codes."""

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        length: int,
        condition_dim: int = 0,
        vectors: Sequence[Tensor] | None = None,
        *,
        layers: Annotated[int, Ge(1), Doc("transformer blocks")] = 4,
        heads: Annotated[int, Ge(1), Doc("attention heads; they divide the width")] = 4,
        width: Annotated[int, Gt(1), Doc("features of a step inside the network")] = 128,
        dropout: Annotated[float, Interval(ge=0.0, lt=1.0), Doc("share of features dropped while training")] = 0.1,
    ) -> None:
        super().__init__(codebook_sizes, length, condition_dim, vectors, width, dropout)
        if width % heads:
            raise VqtoolError(f"`width` {width} is not a multiple of `heads` {heads}")
        self.blocks = nn.ModuleList(Block(width, heads, condition_dim, dropout) for _ in range(layers))
        self.norm = FilmNorm(width, condition_dim)

    def start(self, batch: int, condition: Condition | None, room: int = 0) -> State:
        """The state before the first step; `room` 0: everything comes in one pass."""
        condition = self.complete(batch, condition)
        pasts = [KeyValues(room) for _ in self.blocks]
        if condition is None:
            return State(None, None, [None] * len(pasts), pasts)
        reads = [block.read(condition.tokens) for block in self._blocks()]
        return State(condition.vector, self.aside(condition), reads, pasts)

    def _blocks(self) -> list[Block]:
        return list(cast(Iterable[Block], self.blocks))

    def advance(self, inputs: Tensor, state: State) -> Tensor:
        """[B, n, W] -> [B, n, W], the hidden states of the next n steps."""
        stop = state.taken + inputs.shape[1]
        if state.vector is None and inputs.shape[1] == 1 and state.pasts[0].room and not torch.is_grad_enabled():
            return self._advance_one(inputs, state)
        x = inputs if state.aside is None else inputs + state.aside[:, state.taken : stop]
        x = self.drop(x)
        for block, past, read in zip(self.blocks, state.pasts, state.reads, strict=True):
            x = block(x, past, state.vector, read)
        state.taken = stop
        return self.norm(x, state.vector)

    def _advance_one(self, inputs: Tensor, state: State) -> Tensor:
        """The same for one step without a condition: [B, 1, W] -> [B, 1, W]."""
        if not state.single:
            state.single = [CompiledBlock(block, past) for block, past in zip(self._blocks(), state.pasts, strict=True)]
        x = inputs[:, 0]
        for step in state.single:
            x = step(x)
        state.taken += 1
        return self.norm(x[:, None], None)

    @torch.no_grad()
    def own(self, codes: Tensor, condition: Condition | None, share: float, *, draw: Tensor) -> Tensor:
        """Two-pass scheduled sampling (Mihaylova and Martins 2019, arXiv 1906.07651, 3.2, with argmax).

        The first pass reads the true codes; where `draw` < `share` its likeliest code takes the true one's place. So a
        code of its own follows a true past: an approximation of generation, at the price of one more pass.
        """
        if share <= 0:
            return codes
        with at_rest(self):
            own = self(codes, condition).argmax(-1)
        return torch.where((draw < share) & (codes >= 0), own, codes)
