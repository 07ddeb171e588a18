"""A convolutional correction of a signal that starts at none: x + f(x, condition) with f = 0 at first."""

from __future__ import annotations

from torch import Tensor, nn

from vqtool.layers.activation import Activation
from vqtool.layers.conv import Conv, Padding, ResidualBlock
from vqtool.layers.init import zeroed


class Refine(nn.Module):
    """[B, C, L] -> [B, C, L] through `blocks` residual blocks; with no block the signal itself."""

    def __init__(
        self,
        channels: int,
        *,
        width: int,
        blocks: int,
        kernel: int,
        condition_dim: int,
        mode: Padding = "zeros",
        act: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(width, kernel, condition_dim=condition_dim, mode=mode, act=act) for _ in range(blocks)
        )
        self.reach = (blocks + 2) * (kernel // 2) if blocks else 0  # samples either side that one sample sees
        if blocks:
            self.start = Conv(channels, width, kernel, mode=mode)
            self.end = zeroed(Conv(width, channels, kernel, mode=mode))

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """`x` [B, C, L]; `vector` [B, M] modulates every block."""
        if not self.blocks:
            return x
        h = self.start(x)
        for block in self.blocks:
            h = block(h, vector)
        return x + self.end(h)
