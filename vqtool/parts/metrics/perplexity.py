"""Perplexity of codes over a whole split, of the codes chosen (hard) and of the choice's probabilities (soft)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vqtool.api import DataSpec, Metric
from vqtool.quantizers.core.entropy import entropy


class Perplexity(Metric):
    """For quantizers that choose by probabilities, exp of the entropy in nats: how many codes, used alike, it would be.

    `perplexity.hard.group0`, ... from the counts of the codes, 1 to K; `perplexity.soft.group0`, ... from the mean
    probabilities before noise, which is K for a quantizer that is undecided about every token: alone it cannot
    show a collapse. `.sum` is over groups (what transformers calls `codevector_perplexity`), 1 to G K, `.mean` their
    mean. `perplexity.tokens` counts the tokens.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.hard: list[Tensor] = []  # counts [K_q] of each codebook
        self.soft: Tensor | float = 0.0  # sum over tokens of their probabilities [Q, K]
        self.names: list[str] = []

    def update(
        self,
        *,
        codes: Tensor,
        codebook_sizes: Sequence[int],
        usage: Tensor,
        codebook_names: Sequence[str] | None = None,
    ) -> None:
        """`codes` [B, T, Q], -1 for none; `usage` [Q, K], the mean over their tokens of the choice's probabilities."""
        if not self.hard:
            self.hard = [torch.zeros(size, dtype=torch.long) for size in codebook_sizes]
            self.names = list(codebook_names or (f"group{q}" for q in range(len(codebook_sizes))))
        columns = codes.detach().cpu().flatten(0, -2).unbind(1)
        for column, counts in zip(columns, self.hard, strict=True):
            counts += torch.bincount(column[column >= 0], minlength=len(counts))
        self.soft = self.soft + usage.detach().double().cpu() * int((columns[0] >= 0).sum())

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        tokens = int(self.hard[0].sum()) if self.hard else 0
        if not tokens or isinstance(self.soft, float):
            return {}
        figures = {"perplexity.tokens": float(tokens)}
        kinds = {"hard": [n.double() / n.sum().clamp_min(1) for n in self.hard], "soft": (self.soft / tokens).unbind()}
        for kind, shares in kinds.items():
            each = [float(entropy(share).exp()) for share in shares]
            figures |= {f"perplexity.{kind}.{name}": value for name, value in zip(self.names, each, strict=True)}
            figures |= {f"perplexity.{kind}.sum": sum(each), f"perplexity.{kind}.mean": sum(each) / len(each)}
        return figures
