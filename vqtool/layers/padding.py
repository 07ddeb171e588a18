"""Padded tokens in networks: what they hold must reach no other token."""

from __future__ import annotations

from torch import Tensor


def zero_masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` [B, T, W] with zeros where `mask` [B, T] is false, whatever `x` holds there."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0)
