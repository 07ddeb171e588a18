"""The quantizer contract: a pure forward that returns codes and statistics, and an explicit update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class CodebookStats:
    """What one codebook needs to follow the encoder: sums over the *inputs* of a batch, never over outputs.

    All tensors are float32, whatever the precision of the forward pass.
    """

    counts: Tensor  # [K]     how many inputs chose each code
    sums: Tensor  # [K, d]  the sum of those inputs
    samples: Tensor  # [S, d]  a few of the inputs (S <= K), to revive dead codes from

    def __add__(self, other: CodebookStats) -> CodebookStats:
        """Statistics of two micro-batches: counts and sums add; samples are kept evenly from both, at most K."""
        size = self.counts.shape[0]
        samples = torch.cat([self.samples, other.samples])
        if samples.shape[0] > size:
            keep = torch.linspace(0, samples.shape[0] - 1, size, device=samples.device).round().long()
            samples = samples[keep]
        return CodebookStats(self.counts + other.counts, self.sums + other.sums, samples)


@dataclass(frozen=True, slots=True)
class Quantized:
    """What a quantizer returns. B windows, T tokens, D features, Q codebooks (levels or groups), K codes."""

    z: Tensor  # [B, T, D]  what flows on; in value the code vectors, its gradient reaches the input
    codes: Tensor  # [B, T, Q]  long; -1 where a token is masked or not finite, and for dropped levels
    hard: Tensor  # [B, T, D]  the code vectors, detached
    soft: Tensor | None = None  # [B, T, D]  the expectation under `probs`, for soft quantizers
    probs: Tensor | None = None  # [B, T, Q, K]
    terms: Mapping[str, Tensor] = field(default_factory=dict)  # unweighted scalars, e.g. "commitment"
    stats: tuple[CodebookStats, ...] = ()  # one per codebook that follows by moving average; else empty


class Quantizer(nn.Module):
    """Base of all quantizers. Built with the latent width `dim`; keyword-only parameters are the recipe's options.

    `forward` is pure: it changes no parameter and no buffer, in training and in evaluation. That is what makes
    gradient accumulation, several machines, activation checkpointing and freezing correct without special cases.
    """

    terms: ClassVar[frozenset[str]] = frozenset()  # what a stage may weight in its losses
    knobs: ClassVar[frozenset[str]] = frozenset()  # attributes that a stage may set or schedule
    dim: int
    codebook_sizes: tuple[int, ...]

    @property
    def initialised(self) -> bool:
        """Whether the codebooks hold usable codes; `forward` refuses to run before (an error, never a silent start)."""
        return True

    def initialise(self, z: Tensor, mask: Tensor | None = None, *, seed: int = 0) -> None:
        """Start the codebooks from encoder outputs `z` [B, T, D]; `mask` [B, T] is true for real tokens.

        Called once by the loop, with the same `z` and `seed` on every rank, so that all ranks get the same codes.
        """

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize `z` [B, T, D]; `mask` [B, T] is true for real tokens. Pure."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """`codes` [B, T, Q'] with Q' <= Q (the first Q' codebooks) -> [B, T, D]; -1 contributes nothing."""
        raise NotImplementedError

    def vectors(self) -> tuple[Tensor, ...] | None:
        """What each code adds to the latent: Q tensors [K_q, D] whose sum is `decode`; None if not additive."""
        return None

    def update(self, stats: Sequence[CodebookStats]) -> None:
        """Move the codebooks; called once per optimizer step, after the statistics of all ranks are summed."""


def sum_stats(many: Sequence[tuple[CodebookStats, ...]]) -> tuple[CodebookStats, ...]:
    """Add up the statistics of several micro-batches, codebook by codebook."""
    total = many[0]
    for more in many[1:]:
        total = tuple(a + b for a, b in zip(total, more, strict=True))
    return total
