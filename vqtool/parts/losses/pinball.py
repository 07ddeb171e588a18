"""Quantile loss: smallest where each quantile of a forecast is exceeded as often as its level says."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Loss


class Pinball(Loss):
    """Mean of max(q d, (q - 1) d) with d = truth - quantile (Koenker and Bassett 1978), over levels and steps."""

    def forward(self, *, quantiles: Tensor, levels: Tensor, target: Tensor) -> Tensor:
        """`quantiles` [B, Q, C, H] at `levels` [Q] of `target` [B, C, H] -> scalar."""
        off = target[:, None] - quantiles
        share = levels[:, None, None]
        return (share * off).maximum((share - 1) * off).mean()
