"""Chance without a state: draws that are a function of what is quantized, so that a second pass draws the same."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api.quantizer import content_keys

FINE = 2**53  # steps between 0 and 1


@torch.no_grad()
def row_keys(z: Tensor, valid: Tensor | None, state: Tensor) -> Tensor:
    """A hash [B] of the valid tokens of each window of `z` [B, T, D] and of a codebook's `state`, which changes."""
    batch, length, width = z.shape
    keys = content_keys(z.reshape(-1, width))
    if valid is not None:
        keys = keys.masked_fill(~valid.reshape(-1), 0)
    total = keys.view(batch, length).sum(1) + content_keys(state.reshape(-1, 1)).sum()
    total = (total ^ (total >> 30)) * 0x3F58476D1CE4E5B9
    total = (total ^ (total >> 27)) * 0x14D049BB133111EB
    return (total ^ (total >> 31)) & (2**62 - 1)


def uniform(keys: Tensor, salt: int) -> Tensor:
    """Numbers in [0, 1), float64, of the shape of `keys`; another `salt` gives other ones."""
    mixed = (keys + (salt + 1) * 0x1E3779B97F4A7C15) & (2**62 - 1)
    mixed = (mixed ^ (mixed >> 30)) * 0x3F58476D1CE4E5B9
    mixed = (mixed ^ (mixed >> 27)) * 0x14D049BB133111EB
    return ((mixed ^ (mixed >> 31)) & (FINE - 1)).double() / FINE
