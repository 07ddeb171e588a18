"""2-D convolution blocks that image encoders and decoders share."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vqtool.errors import VqtoolError
from vqtool.layers.init import silent

ImageNorm = Literal["batch", "none"]


def halved(extent: tuple[int, int], times: int, *, exact: bool = False) -> tuple[int, int]:
    """(height, width) after `times` halvings, each rounded up.

    Raises:
        VqtoolError: with `exact`, where something is rounded.
    """
    height, width = (-(-side // 2**times) for side in extent)
    if exact and (height * 2**times, width * 2**times) != tuple(extent):
        near = " x ".join(str(side * 2**times) for side in (height, width))
        raise VqtoolError(
            f"images of {extent[0]} x {extent[1]} are not whole cells of {2**times} x {2**times} pixels",
            hint=f"another number of `widths` (each halves the image), or images of {near}",
        )
    return height, width


def normed(channels: int, norm: ImageNorm) -> nn.Module:
    """Batch normalisation, or nothing."""
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()


class Down(nn.Module):
    """Halves both sides, rounding up: by a stride, or (`pool`) by the largest of each 2 x 2 behind the convolution."""

    def __init__(self, channels: int, out: int, norm: ImageNorm = "batch", *, pool: bool = False) -> None:
        super().__init__()
        self.pool = pool
        self.conv = nn.Conv2d(channels, out, 3, stride=1 if pool else 2, padding=1, bias=norm == "none")
        self.norm = normed(out, norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out, ceil(H / 2), ceil(W / 2)]."""
        h = F.relu(self.norm(self.conv(x)))
        return F.max_pool2d(h, 2, ceil_mode=True) if self.pool else h


class Up(nn.Module):
    """Doubles both sides, less a row or column where the larger image has an odd side."""

    def __init__(self, channels: int, out: int, extent: tuple[int, int], norm: ImageNorm = "batch") -> None:
        super().__init__()
        self.extent = extent
        self.conv = nn.ConvTranspose2d(channels, out, 4, stride=2, padding=1, bias=norm == "none")
        self.norm = normed(out, norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, out, H, W]."""
        height, width = self.extent
        return F.relu(self.norm(self.conv(x)[..., :height, :width]))


class Residual(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), the last norm (or, without any, convolution) starting at zero."""

    def __init__(self, channels: int, norm: ImageNorm = "batch") -> None:
        super().__init__()
        bias = norm == "none"
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.norms = nn.ModuleList([normed(channels, norm), normed(channels, norm)])
        silent(self.second if norm == "none" else self.norms[1])

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        h = F.relu(self.norms[0](self.first(x)))
        return F.relu(x + self.norms[1](self.second(h)))
