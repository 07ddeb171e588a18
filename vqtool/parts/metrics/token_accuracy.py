"""How many codes a prior gets right, given the true past and given its own; and its cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vqtool.api import DataSpec, Metric


class TokenAccuracy(Metric):
    """Over all codes of a split: the share of right ones, as fractions, and the cross-entropy in nats a code.

    `token_accuracy.forced`: the likeliest code where the true past is fed; `token_accuracy.free`: the codes that the
    prior wrote by itself. Masked codes (-1) are left out.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.forced = self.free = self.nats = 0.0
        self.tokens = self.free_tokens = 0

    def update(self, *, codes: Tensor, logits: Tensor, codes_free: Tensor | None = None) -> None:
        """`codes`, `codes_free` [B, T, Q]; `logits` [B, T, Q, K], -inf beyond a codebook's size."""
        real = codes >= 0
        logits = logits.detach().float()
        self.tokens += int(real.sum())
        self.forced += float(((logits.argmax(-1) == codes) & real).sum())
        log_p = logits.log_softmax(-1).gather(-1, codes.clamp_min(0)[..., None])[..., 0]
        self.nats -= float(log_p[real].double().sum())
        if codes_free is not None:
            self.free_tokens += int(real.sum())
            self.free += float(((codes_free == codes) & real).sum())

    def compute(self) -> Mapping[str, float]:
        """`token_accuracy.forced`, `cross_entropy`, and `token_accuracy.free` where the prior wrote codes."""
        if self.tokens == 0:
            return {}
        figures = {"token_accuracy.forced": self.forced / self.tokens, "cross_entropy": self.nats / self.tokens}
        if self.free_tokens:
            figures["token_accuracy.free"] = self.free / self.free_tokens
        return figures
