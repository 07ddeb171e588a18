"""Two entropies of a soft quantizer: how many codes are in use, and how undecided each token is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vqtool.api import DataSpec, Metric


class Entropies(Metric):
    """In nats, means over codebooks, over all tokens of a split.

    `entropy.use` is H(mean q), the diversity of the codes: high is good, log K at most. `entropy.token` is mean H(q), a
    token's softness: 0 is a hard choice. Look at both: they are both log K for a quantizer that never decides.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.sums: Tensor | None = None  # [Q, K]
        self.own = 0.0
        self.tokens = 0

    def update(self, *, probs: Tensor, codes: Tensor) -> None:
        """`probs` [B, T, Q, K], `codes` [B, T, Q] with -1 for tokens that do not count."""
        real = (codes >= 0).all(-1)
        q = probs.detach().double()[real]  # [N, Q, K]
        self.sums = q.sum(0) if self.sums is None else self.sums + q.sum(0)
        self.own += float(torch.special.entr(q).sum(-1).mean(-1).sum())
        self.tokens += len(q)

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        if self.sums is None or not self.tokens:
            return {}
        use = torch.special.entr(self.sums / self.tokens).sum(-1).mean()
        return {"entropy.use": float(use), "entropy.token": self.own / self.tokens}
