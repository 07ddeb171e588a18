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


@torch.no_grad()
def noise_keys(z: Tensor, weights: Tensor) -> Tensor:
    """Hashes [N], int32, of each token of `z` [B, T, D], its place t and the state of `weights`, which are trained."""
    batch, length, width = z.shape
    keys = content_keys(z.reshape(-1, width)).view(batch, length)
    places = torch.arange(length, device=z.device) * 0x1E3779B97F4A7C15
    keys = (keys ^ places) + content_keys(weights[:8]).sum()
    keys = (keys ^ (keys >> 31)) * 0x3F58476D1CE4E5B9
    return (keys ^ (keys >> 29)).reshape(-1).to(torch.int32)


def column_keys(width: int, device: torch.device) -> Tensor:
    """A hash of each column's number [width], int32."""
    numbers = (torch.arange(width, device=device) + 1) * 0x1E3779B97F4A7C15
    numbers = (numbers ^ (numbers >> 30)) * 0x3F58476D1CE4E5B9
    return (numbers ^ (numbers >> 27)).to(torch.int32)


def gumbel(keys: Tensor, columns: Tensor) -> Tensor:
    """Minus standard Gumbel noise [n, width]: log(-log u) for uniform u hashed from row and column, 5 fast passes.

    The usual generators cost several times the matrix product that the noise is added to, and have a state.
    """
    bits = keys[:, None] ^ columns[None, :]
    bits *= -0x7A143589  # 0x85EBCA77, prime, as int32
    bits ^= bits >> 15
    bits *= -0x3D4D51C3  # 0xC2B2AE3D, prime, as int32
    uniform = bits.float()
    uniform.mul_(2**-32 * (1 - 2**-20)).add_(0.5)
    return uniform.log_().neg_().log_()
