"""1-D convolution blocks that conv encoders, decoders and conditioners share."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Padding = Literal["zeros", "circular", "replicate"]


def pad(x: Tensor, left: int, right: int, mode: Padding) -> Tensor:
    """Pad the last axis; "circular" joins the ends, for signals of which a window is one whole period."""
    return F.pad(x, (left, right)) if mode == "zeros" else F.pad(x, (left, right), mode=mode)


class Conv(nn.Module):
    """A convolution [B, C, L] -> [B, C', ceil(L / stride)] with the padding done outside."""

    def __init__(self, channels: int, out: int, kernel: int, *, stride: int = 1, mode: Padding = "zeros") -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, out, kernel, stride)
        self.mode: Padding = mode
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Tokens sit in the middle of what they see."""
        want = -(-x.shape[-1] // self.stride)
        total = max(0, (want - 1) * self.stride + self.kernel - x.shape[-1])
        return self.conv(pad(x, total // 2, total - total // 2, self.mode))


class Film(nn.Module):
    """Feature-wise scale and shift by a condition's vector (Perez et al. 2018, arXiv 1709.07871), at first none."""

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.scale_shift = nn.Linear(condition_dim, 2 * channels)
        nn.init.zeros_(self.scale_shift.weight)
        nn.init.zeros_(self.scale_shift.bias)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """`x` [B, C, L], `vector` [B, M]."""
        scale, shift = self.scale_shift(vector).unsqueeze(-1).chunk(2, dim=1)
        return x * (1 + scale) + shift


class ResidualBlock(nn.Module):
    """x + conv(GELU(FiLM(conv(GELU(x))))), the last convolution starting at zero."""

    def __init__(self, channels: int, kernel: int, *, condition_dim: int = 0, mode: Padding = "zeros") -> None:
        super().__init__()
        self.first = Conv(channels, channels, kernel, mode=mode)
        self.second = Conv(channels, channels, 1, mode=mode)
        self.film = Film(condition_dim, channels) if condition_dim else None
        nn.init.zeros_(self.second.conv.weight)

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """`x` [B, C, L], `vector` [B, M] or None."""
        inner = self.first(F.gelu(x))
        if self.film is not None and vector is not None:
            inner = self.film(inner, vector)
        return x + self.second(F.gelu(inner))
