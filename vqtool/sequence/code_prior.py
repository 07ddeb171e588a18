"""What the autoregressive priors share: codes and a condition in, logits out, and generation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.api import Condition, Prior
from vqtool.sequence import generation
from vqtool.sequence.code_head import CodeHead


class CodePrior(Prior):
    """A prior whose network turns a flat sequence of inputs into hidden states, in one pass or step by step.

    A network gives `start` and `advance`; its state answers `pick(rows)` and `spread(rows)`. Training takes all N
    steps in one `advance`, generation takes them one after the other.
    """

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        length: int,
        condition_dim: int,
        vectors: Sequence[Tensor] | None,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.codebook_sizes, self.length, self.condition_dim = tuple(codebook_sizes), length, condition_dim
        guessed = bool(condition_dim) and vectors is not None
        self.head = CodeHead(codebook_sizes, length, width, vectors, guessed=guessed)
        self.drop = nn.Dropout(dropout)
        self.beside = nn.Linear(2 * condition_dim, width) if condition_dim else None
        self.guesser: nn.Linear | None = None
        if guessed and vectors is not None:
            self.guesser = nn.Linear(condition_dim, length * vectors[0].shape[-1])
            nn.init.normal_(self.guesser.weight, std=0.01)
            nn.init.zeros_(self.guesser.bias)

    # ---- what a network gives

    def start(self, batch: int, condition: Condition | None, room: int = 0) -> Any:
        """The state before the first step; `room` > 0: for that many steps, taken one after the other."""
        raise NotImplementedError

    def advance(self, inputs: Tensor, state: Any) -> Tensor:
        """Read the next n inputs [B, n, W], change `state`, and give their hidden states [B, n, W]."""
        raise NotImplementedError

    # ---- the condition

    def complete(self, batch: int, condition: Condition | None) -> Condition | None:
        """The condition with nothing missing: without one all is zero; without tokens the vector is the one token."""
        if not self.condition_dim:
            return None
        if condition is None:
            condition = Condition(self.head.begin.new_zeros(batch, self.condition_dim))
        tokens = condition.vector[:, None] if condition.tokens is None else condition.tokens
        return Condition(condition.vector, tokens)

    def aside(self, condition: Condition | None) -> Tensor | None:
        """What the condition adds to the input of every step: its vector, and its tokens brought to the T tokens.

        [B, N, W]; None without a condition.
        """
        if self.beside is None or condition is None or condition.tokens is None:
            return None
        local = overlap(self.length, condition.tokens.shape[1]).to(condition.tokens) @ condition.tokens  # [B, T, M]
        known = torch.cat([condition.vector[:, None].expand_as(local), local], dim=-1)
        return self.beside(known).repeat_interleave(len(self.codebook_sizes), dim=1)

    def guess(self, batch: int, condition: Condition | None) -> Tensor | None:
        """The latents predicted from the condition alone, [B, T, D] in units of their spread; None without a condition.

        A short way from the condition to the latents, as wide as they are: the network, often narrower, corrects it.
        """
        condition = self.complete(batch, condition)
        if self.guesser is None or condition is None:
            return None
        return self.guesser(condition.vector).unflatten(1, (self.length, -1))

    def latents(self, condition: Condition | None) -> Tensor | None:
        """The latents [B, T, D] predicted from the condition alone; None where the codes have no vectors."""
        guess = None if condition is None else self.guess(len(condition.vector), condition)
        return None if guess is None else self.head.whole(guess)

    # ---- the contract

    def outputs(
        self, codes: Tensor, condition: Condition | None = None, *, fed: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [B, T, Q, K] and the predicted full latents [B, T, Q, D] (None without codebook vectors)."""
        past = codes if fed is None else fed
        hidden = self.advance(self.head.inputs(past), self.start(len(past), condition))
        return self.head.outputs(hidden, past, self.guess(len(past), condition))

    def targets(self, codes: Tensor, fed: Tensor, latent: Tensor | None = None) -> Tensor:
        """The target codes after `fed` [B, T, Q]: `codes`, or the finer code that corrects a wrong coarser one."""
        return self.head.targets(codes, fed, latent)

    def copy_vectors(self, vectors: Sequence[Tensor]) -> None:
        """Take the codes' vectors, and the scales that follow from them, from the now trained quantizer."""
        if self.head.vectors is not None:
            self.head.copy_vectors(vectors)

    @torch.no_grad()
    def sample(
        self,
        batch: int,
        condition: Condition | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seeds: Sequence[int] | None = None,
        prefix: Tensor | None = None,
        paths: int = 1,
        tokens: int | None = None,
    ) -> Tensor:
        """Generate codes [B * paths, tokens, Q]; see `Prior.sample`. Without `seeds` the global generator gives them.

        Raises:
            VqtoolError: a temperature below 0, `top_k` below 1, `top_p` outside (0, 1], or a prefix that does not fit.
        """
        choose = generation.chooser(self, batch * paths, temperature, top_k, top_p, seeds)
        return generation.generate(self, batch, condition, choose, prefix, paths=paths, tokens=tokens)

    @torch.no_grad()
    def beam(self, batch: int, condition: Condition | None = None, *, width: int = 8) -> tuple[Tensor, Tensor]:
        """The best codes [B, T, Q] of a beam search and their log-probabilities [B]; never worse than greedy."""
        return generation.beam(self, batch, condition, width)


def overlap(length: int, positions: int) -> Tensor:
    """[T, S], rows summing to 1: the share of each of S equal pieces of a window in each of T equal pieces."""
    tokens = torch.arange(length)[:, None] / length
    pieces = torch.arange(positions)[None] / positions
    shared = torch.minimum(tokens + 1 / length, pieces + 1 / positions) - torch.maximum(tokens, pieces)
    return shared.clamp(min=0) * length


def taken(value: Tensor | None, rows: Tensor) -> Tensor | None:
    """The rows of a tensor, where there is one."""
    return None if value is None else value[rows]


@contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """Run a module in evaluation mode, without dropout and its random numbers, and put every mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
