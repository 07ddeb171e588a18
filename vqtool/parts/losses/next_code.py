"""Cross-entropy of every code given those before it."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Interval
from torch import Tensor

from vqtool.api import DataSpec, Loss


class NextCode(Loss):
    """Mean of -log p(code), in nats a code; codes of -1 (masked) do not count."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        smoothing: Annotated[
            float,
            Interval(ge=0.0, lt=1.0),
            Doc("share of the target spread evenly over the codebook (Szegedy et al. 2016, section 7)"),
        ] = 0.0,
    ) -> None:
        super().__init__(spec)
        self.smoothing = smoothing

    def forward(self, *, logits: Tensor, codes: Tensor) -> Tensor:
        """`logits` [B, T, Q, K] (-inf beyond a codebook's size), `codes` [B, T, Q] -> scalar; 0 if all are masked."""
        possible = logits.isfinite()  # the spread goes over real codes only, and each row over its own codebook's
        log_probs = logits.float().log_softmax(-1)
        loss = -log_probs.gather(-1, codes.clamp(min=0)[..., None])[..., 0]
        if self.smoothing:
            spread = -log_probs.masked_fill(~possible, 0.0).sum(-1) / possible.sum(-1)
            loss = (1 - self.smoothing) * loss + self.smoothing * spread
        counted = codes >= 0
        return torch.where(counted, loss, 0.0).sum() / counted.sum().clamp(min=1)
