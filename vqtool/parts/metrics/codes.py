"""How a split uses the codebooks: codes used, perplexity and entropy, over the whole split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vqtool.api import DataSpec, Metric


class Codes(Metric):
    """Counts every code over all batches, so that the figures do not depend on the batch size.

    For one codebook of K codes: `codes.used` is the share of the K codes that occur at all, `codes.entropy_bits` the
    entropy of their distribution in bits a code, `codes.perplexity` = 2^entropy in codes, `codes.perplexity_share` that
    over K. Where there are several codebooks each has its own figures under `.group0`, `.group1`, ... (`.level0`, ...
    of levels, each of which codes what those before it left), and the plain names are `used` over all codes, and the
    means over the codebooks of the others. `codes.tokens` counts codes seen.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.counts: list[Tensor] = []  # one [K_q] for each codebook
        self.names: list[str] = []

    def update(
        self, *, codes: Tensor, codebook_sizes: Sequence[int], codebook_names: Sequence[str] | None = None
    ) -> None:
        """`codes` [B, T, Q], -1 for none; `codebook_sizes` the Q sizes, `codebook_names` what they are called."""
        sizes = [int(size) for size in codebook_sizes]
        if codes.shape[-1] != len(sizes):
            raise ValueError(f"codes of {codes.shape[-1]} codebooks, but {len(sizes)} sizes")
        if not self.counts:
            self.counts = [torch.zeros(size, dtype=torch.long) for size in sizes]
            self.names = list(codebook_names or (f"group{q}" for q in range(len(sizes))))
        flat = codes.detach().cpu().reshape(-1, len(sizes))
        for column, counts in zip(flat.unbind(1), self.counts, strict=True):
            counts += torch.bincount(column[column >= 0], minlength=len(counts))

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        if not self.counts:
            return {}
        each = [_figures(counts) for counts in self.counts]
        total = sum(len(counts) for counts in self.counts)
        figures = {f"codes.{name}": sum(one[name] for one in each) / len(each) for name in each[0]}
        figures["codes.used"] = sum(int((counts > 0).sum()) for counts in self.counts) / total
        figures["codes.tokens"] = float(sum(int(counts.sum()) for counts in self.counts))
        if len(each) > 1:
            named = zip(self.names, each, strict=True)
            figures |= {f"codes.{name}.{book}": value for book, one in named for name, value in one.items()}
        return figures


def _figures(counts: Tensor) -> dict[str, float]:
    """Use of one codebook, from its counts [K]; all zero where no code was seen."""
    share = counts.double() / counts.sum().clamp_min(1)
    entropy = float(-(share * share.clamp_min(1e-300).log2()).sum())
    perplexity = math.pow(2, entropy) if int(counts.sum()) else 0.0
    return {
        "used": float((counts > 0).double().mean()),
        "perplexity": perplexity,
        "perplexity_share": perplexity / len(counts),
        "entropy_bits": entropy,
    }
