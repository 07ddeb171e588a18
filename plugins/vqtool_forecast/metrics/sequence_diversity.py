"""How varied the sequences of codes are: distinct windows, and how well a code predicts the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vqtool.api import DataSpec, Metric


class SequenceDiversity(Metric):
    """Of the first codebook's codes, over the whole split.

    `codes.distinct_windows` is the share of windows whose sequence no other window has; `codes.distinct_pairs` the
    share of the pairs of neighbouring codes seen that are different ones, over the most there could be (the fewer of
    K^2 and the number of pairs); `codes.next_entropy_bits` the entropy of a code given the one before it, in bits.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.pairs: Tensor | None = None  # [K, K]
        self.seen: dict[bytes, int] = {}

    def update(self, *, codes: Tensor, codebook_sizes: Sequence[int], future: Tensor) -> None:
        """`codes` [B, T, Q]; `future` is not read: it shows that these are windows of series."""
        first = codes.detach().cpu()[..., 0]
        for row in first.numpy():
            key = row.tobytes()
            self.seen[key] = self.seen.get(key, 0) + 1
        size = int(codebook_sizes[0])
        if self.pairs is None:
            self.pairs = torch.zeros(size, size, dtype=torch.long)
        before, after = first[:, :-1].flatten(), first[:, 1:].flatten()
        real = (before >= 0) & (after >= 0)
        self.pairs += torch.bincount((before * size + after)[real], minlength=size * size).view(size, size)

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        if self.pairs is None or not int(self.pairs.sum()):
            return {}
        share = self.pairs.double() / self.pairs.sum()
        both, one = (-(p * p.clamp_min(1e-300).log2()).sum() for p in (share, share.sum(1)))
        most = min(self.pairs.numel(), int(self.pairs.sum()))
        return {
            "codes.distinct_windows": sum(n == 1 for n in self.seen.values()) / sum(self.seen.values()),
            "codes.distinct_pairs": int((self.pairs > 0).sum()) / most,
            "codes.next_entropy_bits": float(both - one),
        }
