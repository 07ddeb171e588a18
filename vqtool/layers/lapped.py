"""Overlapping windows: a linear map to features at every hop, and back by adding what overlaps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mdct(hop: int, span: int) -> Tensor:
    """The MDCT of 2 `hop` samples under a sine window, in the middle of `span` hops: [hop, span * hop].

    (Princen and Bradley 1986.) Its rows, shifted by every multiple of `hop`, are an orthonormal basis: the transposed
    matrix and overlap-add give the signal back.
    """
    n = torch.arange(2 * hop, dtype=torch.float64) + 0.5
    k = torch.arange(hop, dtype=torch.float64) + 0.5
    window = torch.sin(math.pi / (2 * hop) * n)
    basis = window * math.sqrt(2 / hop) * torch.cos(math.pi / hop * (n + hop / 2) * k[:, None])
    before = (span - 2) * hop // 2
    return F.pad(basis, (before, span * hop - 2 * hop - before)).float()


class Analysis(nn.Module):
    """[B, C, T * hop] -> [B, T, D]: one trained linear map of `span` hops around each token, the MDCT at first.

    With C channels the D features are shared out: D / C of each, lowest frequencies first. Beyond the ends lie zeros.
    """

    def __init__(self, channels: int, hop: int, dim: int, span: int) -> None:
        super().__init__()
        self.hop, self.span = hop, span
        self.before = (span - 1) * hop // 2
        self.map = nn.Linear(channels * span * hop, dim, bias=False)
        with torch.no_grad():
            self.map.weight.copy_(_spread(channels, hop, dim, span))

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, C, L]; L is a multiple of the hop."""
        after = (self.span - 1) * self.hop - self.before
        windows = F.pad(x, (self.before, after)).unfold(-1, self.span * self.hop, self.hop)  # [B, C, T, W]
        return self.map(windows.transpose(1, 2).flatten(2))


class Synthesis(nn.Module):
    """[B, T, D] -> [B, C, T * hop]: the mirror of `Analysis`, at first its transpose."""

    def __init__(self, channels: int, hop: int, dim: int, span: int) -> None:
        super().__init__()
        self.channels, self.hop, self.span = channels, hop, span
        self.before = (span - 1) * hop // 2
        self.map = nn.Linear(dim, channels * span * hop, bias=False)
        with torch.no_grad():
            self.map.weight.copy_(_spread(channels, hop, dim, span).T)

    def forward(self, z: Tensor) -> Tensor:
        """`z` [B, T, D]; what reaches beyond the ends is cut off."""
        batch, tokens, _ = z.shape
        pieces = self.map(z).view(batch, tokens, self.channels, self.span, self.hop)
        total = z.new_zeros(batch, tokens + self.span - 1, self.channels, self.hop)
        for k in range(self.span):
            total[:, k : k + tokens] += pieces[:, :, :, k]
        x = total.transpose(1, 2).flatten(2)
        return x[..., self.before : self.before + tokens * self.hop]


def _spread(channels: int, hop: int, dim: int, span: int) -> Tensor:
    """The MDCT of each channel: [dim, channels * span * hop]; features beyond it start as noise of the same size."""
    each = mdct(hop, span)
    size = each.shape[1]
    weight = torch.randn(dim, channels * size) * (channels * size) ** -0.5
    share = min(dim // channels, hop)
    for channel in range(channels):
        rows = slice(channel * share, (channel + 1) * share)
        weight[rows] = 0
        weight[rows, channel * size : (channel + 1) * size] = each[:share]
    return weight
