"""What the recurrent priors share: a recurrent network over codes, then a look at the condition."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from vqtool.api import Condition
from vqtool.api.precision import own_precision
from vqtool.layers.attention import CrossAttention, FeedForward, FilmNorm
from vqtool.sequence import generation
from vqtool.sequence.code_prior import CodePrior, at_rest, taken


@dataclass(slots=True)
class State:
    """The state of a generation: the condition as the layers read it, and the network's memory."""

    vector: Tensor | None  # [B, M]
    aside: Tensor | None  # [B, N, W]
    read: tuple[Tensor, Tensor] | None
    memory: Tensor | tuple[Tensor, ...] | None = None  # [layers, B, W] each
    taken: int = 0

    def pick(self, rows: Tensor) -> None:
        """Let row b continue from the memory of row `rows[b]`, which has the same condition."""
        if isinstance(self.memory, tuple):
            self.memory = tuple(part[:, rows] for part in self.memory)
        elif self.memory is not None:
            self.memory = self.memory[:, rows]

    def spread(self, rows: Tensor) -> None:
        """Let row b continue from row `rows[b]` of this state, from its memory and under its condition."""
        self.vector, self.aside = taken(self.vector, rows), taken(self.aside, rows)
        self.read = None if self.read is None else (self.read[0][rows], self.read[1][rows])
        self.pick(rows)


class RecurrentPrior(CodePrior):
    """A recurrent network [B, N, W] over the flat sequence of codes, then cross-attention to the condition's tokens.

    The condition also comes with the input of every step.
    """

    kind: ClassVar[type[nn.GRU] | type[nn.LSTM]]

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        length: int,
        condition_dim: int = 0,
        vectors: Sequence[Tensor] | None = None,
        *,
        layers: Annotated[int, Ge(1), Doc("recurrent layers")] = 1,
        width: Annotated[int, Gt(1), Doc("features of a step, and of the network's memory")] = 160,
        dropout: Annotated[float, Interval(ge=0.0, lt=1.0), Doc("share of features dropped while training")] = 0.1,
    ) -> None:
        network = self.kind(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        super().__init__(codebook_sizes, length, condition_dim, vectors, width, dropout)
        self.network = network
        self.norm_cross = nn.LayerNorm(width) if condition_dim else None
        self.cross = CrossAttention(width, math.gcd(width, 4), condition_dim, dropout) if condition_dim else None
        self.norm_feed = FilmNorm(width, condition_dim)
        self.feed = FeedForward(width, dropout)
        self.norm = FilmNorm(width, condition_dim)

    def start(self, batch: int, condition: Condition | None, room: int = 0) -> State:
        """The state before the first step."""
        condition = self.complete(batch, condition)
        if condition is None:
            return State(None, None, None)
        read = None if self.cross is None or condition.tokens is None else self.cross.read(condition.tokens)
        return State(condition.vector, self.aside(condition), read)

    def advance(self, inputs: Tensor, state: State) -> Tensor:
        """[B, n, W] -> [B, n, W], the hidden states of the next n steps."""
        stop = state.taken + inputs.shape[1]
        x = inputs if state.aside is None else inputs + state.aside[:, state.taken : stop]
        with own_precision(x) if no_kernel(x) else contextlib.nullcontext():
            x, state.memory = self.network(self.drop(x).to(self.network.weight_ih_l0.dtype), state.memory)
        x = self.drop(x)
        state.taken = stop
        if self.cross is not None and self.norm_cross is not None and state.read is not None:
            x = x + self.drop(self.cross(self.norm_cross(x), state.read))
        x = x + self.feed(self.norm_feed(x, state.vector))
        return self.norm(x, state.vector)

    @torch.no_grad()
    def own(self, codes: Tensor, condition: Condition | None, share: float, *, draw: Tensor) -> Tensor:
        """Scheduled sampling as Bengio et al. 2015 (arXiv 1506.03099) do it, with argmax: one step after the other.

        Every code of the model follows the past that is really fed, so a share of 1 is what greedy generation gives.
        """
        if share <= 0:
            return codes

        def choose(logits: Tensor, step: int) -> Tensor:
            true, drawn = codes.flatten(1)[:, step], draw.flatten(1)[:, step]
            return torch.where((drawn < share) & (true >= 0), logits.argmax(-1), true)

        with at_rest(self):
            return generation.generate(self, len(codes), condition, choose, tokens=codes.shape[1])


def no_kernel(x: Tensor) -> bool:
    """Whether autocast would compute in float16 on a CPU, where torch has no recurrent networks of that type."""
    return (x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.float16)  # fmt: skip
