"""How codes are used while training, over the log interval, not one batch."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api.quantizer import Quantizer


class Usage:
    """Counts codes [B, T, Q] per codebook; -1 counts nowhere."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def add(self, codes: Tensor) -> None:
        """Take a batch's codes."""
        self.kept.append(codes.detach().reshape(-1, codes.shape[-1]))

    def take(self, quantizer: Quantizer | None) -> dict[str, float]:
        """Share of codes used and perplexity (exp of the entropy in nats): means over codebooks since the last call."""
        if not self.kept or quantizer is None:
            return {}
        codes = torch.cat(self.kept)
        self.kept = []
        used, perplexity = [], []
        for q, size in enumerate(quantizer.codebook_sizes):
            column = codes[:, q]
            share = torch.bincount(column[column >= 0], minlength=size).double()
            share = share / share.sum().clamp(min=1)
            used.append(float((share > 0).sum()) / size)
            perplexity.append(float(torch.exp(torch.special.entr(share).sum())))
        mean_used, mean_perplexity = sum(used) / len(used), sum(perplexity) / len(perplexity)
        return {"codes.used": mean_used, "codes.perplexity": mean_perplexity}
