"""Log energies in learned bands, then residual convolutions at the tokens' own rate: what changes, not the waveform."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import Condition, Encoder
from vqtool.errors import VqtoolError
from vqtool.nn.conv import Film


class FilterbankEncoder(Encoder):
    """[B, C, L] -> [B, ceil(L / stride), D]: a bank of complex filters, log energy, convolutions, layer norm.

    Each filter reads all channels, so it sees a band and a polarisation. They start as wavelets whose length falls with
    their frequency, every second one on a single channel and the others on a random mixture with random phases, and are
    trained like everything else. The logarithm lets what is weak in a window be told apart as well as what is strong; a
    group norm over the window takes the level away. (The scattering transform's first order, Anden and Mallat 2014,
    arXiv 1304.6763, made trainable as in LEAF, Zeghidour et al. 2021, arXiv 2101.08596.)
    """

    def __init__(
        self,
        channels: int,
        length: int,
        condition_dim: int = 0,
        *,
        dim: Annotated[int, Gt(0), Doc("features per token, D")] = 128,
        stride: Annotated[int, Gt(0), Doc("samples per token")] = 32,
        hop: Annotated[int, Gt(0), Doc("samples from one energy to the next; must divide `stride`")] = 8,
        filters: Annotated[int, Gt(0), Doc("complex filters")] = 48,
        kernel: Annotated[int, Ge(4), Doc("samples that a filter spans")] = 128,
        floor: Annotated[float, Gt(0), Doc("energy below which nothing is told apart, in units of the input's")] = 1e-5,
        width: Annotated[int, Gt(0), Doc("channels inside, at the tokens' rate")] = 128,
        dilations: Annotated[tuple[int, ...], MinLen(0), Doc("one residual block each, dilated so much")] = (1, 2, 4),
    ) -> None:
        super().__init__()
        if stride % hop:
            raise VqtoolError(f"`hop` = {hop} does not divide the stride of {stride} samples")
        self.dim, self.stride, self.hop, self.floor = dim, stride, hop, floor
        self.bank = nn.Conv1d(channels, 2 * filters, kernel, stride=hop, bias=False)
        with torch.no_grad():
            self.bank.weight.copy_(wavelets(channels, filters, kernel))
        self.level = nn.GroupNorm(1, filters)
        self.down = nn.Conv1d(filters, width, 2 * stride // hop, stride=stride // hop)
        self.blocks = nn.ModuleList(DilatedBlock(width, dilation, condition_dim) for dilation in dilations)
        self.end = nn.Linear(width, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """Encode `x` [B, C, L]; the condition's vector modulates every residual block."""
        vector = condition.vector if condition is not None else None
        tokens = -(-x.shape[-1] // self.stride)
        h = self.level(self.energies(x, tokens * self.stride // self.hop))
        h = self.down(centred(h, tokens, self.down))
        for block in self.blocks:
            h = block(h, vector)
        return self.norm(self.end(F.gelu(h).transpose(1, 2)))  # [B, T, D]

    def energies(self, x: Tensor, steps: int) -> Tensor:
        """Log energy in each filter [B, filters, steps], a step every `hop` samples."""
        real, imaginary = self.bank(centred(x, steps, self.bank)).chunk(2, dim=1)
        return (real.square() + imaginary.square() + self.floor).log()


def centred(x: Tensor, steps: int, conv: nn.Conv1d) -> Tensor:
    """`x` [B, C, L] with zeros around, so that `conv` gives `steps` outputs whose strides lie amid what they see."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    total = (steps - 1) * stride + kernel - x.shape[-1]
    left = max(0, (kernel - stride) // 2)
    return F.pad(x, (left, max(0, total - left)))


def wavelets(channels: int, filters: int, kernel: int) -> Tensor:
    """[2 * filters, channels, kernel], real parts then imaginary ones, from 1.5 periods a kernel to 0.45 a sample.

    Gaussian windows of norm 1 with a standard deviation of two periods, at most a fifth of the kernel.
    """
    frequency = torch.logspace(math.log10(1.5 / kernel), math.log10(0.45), filters)[:, None]
    time = torch.arange(kernel) - (kernel - 1) / 2
    window = torch.exp(-0.5 * (time / (2 / frequency).clamp_max(kernel / 5)) ** 2)
    carrier = torch.polar(window / window.norm(dim=1, keepdim=True), 2 * math.pi * frequency * time)
    mixed = torch.randn(filters, channels, dtype=torch.cfloat)
    number = torch.arange(filters)
    single = F.one_hot(number // 2 % channels, channels).to(mixed)
    weight = torch.where((number % 2 > 0)[:, None], single, F.normalize(mixed, dim=1))
    return torch.view_as_real(weight[:, :, None] * carrier[:, None]).permute(3, 0, 1, 2).flatten(0, 1)


class DilatedBlock(nn.Module):
    """x + conv(GELU(FiLM(dilated conv(layer norm(x))))), the last starting at zero. [B, W, T] -> [B, W, T]."""

    def __init__(self, width: int, dilation: int, condition_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Conv1d(width, width, 3, dilation=dilation, padding=dilation)
        self.film = Film(condition_dim, width) if condition_dim else None
        self.point = nn.Conv1d(width, width, 1)
        nn.init.zeros_(self.point.weight)

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """`x` [B, W, T], `vector` [B, M] or None."""
        inner = self.wide(self.norm(x.transpose(1, 2)).transpose(1, 2))
        if self.film is not None and vector is not None:
            inner = self.film(inner, vector)
        return x + self.point(F.gelu(inner))
