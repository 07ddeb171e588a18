"""Log energies in learned bands, and how they were and will be: leaky means before and behind each token."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import Condition, Encoder, Renamed, expect_windows
from vqtool.errors import VqtoolError
from vqtool.layers.conv import Film
from vqtool.layers.init import silent

CHUNK = 512  # tokens whose means are computed at a time


class FilterbankEncoder(Encoder):
    """[B, C, L] -> [B, ceil(L / stride), D]: complex filters, log energy, a small network, leaky means, layer norm.

    The filters are shared by all channels, start as wavelets whose length falls with their frequency, and are trained
    like everything else (the scattering transform's first order, Anden and Mallat 2014, arXiv 1304.6763, made trainable
    as in LEAF, Zeghidour et al. 2021, arXiv 2101.08596). The logarithm resolves what is weak in a window as well as
    what is strong. A few features of each token are then averaged over the tokens before it and behind it, with
    weights that fall by e over each of the times in `memory`: so a token distinguishes an onset from an ending, and
    loud from louder than before, at little cost. They are few, and the times long, because a contrastive task rewards
    whatever distinguishes a token from its neighbours, chance details too.
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
        bands: Annotated[int, Gt(0), Doc("complex filters for each channel")] = 16,
        kernel: Annotated[int, Ge(4), Doc("samples that a filter spans")] = 96,
        floor: Annotated[float, Gt(0), Doc("energy that is added to all, in units of the input's variance")] = 1e-5,
        width: Annotated[int, Gt(0), Doc("features inside")] = 128,
        blocks: Annotated[int, Ge(0), Doc("residual layers that see one token")] = 2,
        memory: Annotated[tuple[float, ...], Doc("times that the means before and behind forget over, in tokens")] = (
            9.0,
            27.0,
        ),
        memory_dim: Annotated[int, Gt(0), Renamed("kept"), Doc("features of a token that the means are taken of")] = 32,
    ) -> None:
        super().__init__()
        expect_windows(length, "the encoder `filterbank`", otherwise="conv2d")
        if stride % hop:
            raise VqtoolError(f"`hop` = {hop} does not divide the stride of {stride} samples")
        if not all(time > 0 for time in memory):
            raise VqtoolError(f"the times in `memory` are above 0 tokens, not {', '.join(map(str, memory))}")
        self.dim, self.stride, self.hop, self.floor, self.memory = dim, stride, hop, floor, memory
        self.bank = nn.Conv1d(1, 2 * bands, kernel, stride=hop, bias=False)
        with torch.no_grad():
            self.bank.weight.copy_(wavelets(bands, kernel))
        self.down = nn.Conv1d(channels * bands, width, 2 * stride // hop, stride=stride // hop)
        self.film = Film(condition_dim, width) if condition_dim else None
        self.blocks = nn.ModuleList(PointBlock(width) for _ in range(blocks))
        self.keep = nn.Linear(width, memory_dim)
        self.mix = nn.Linear((1 + 2 * len(memory)) * memory_dim, width)
        self.end = nn.Linear(width, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """Encode `x` [B, C, L]; the condition's vector modulates the tokens before they are mixed."""
        tokens = -(-x.shape[-1] // self.stride)
        h = self.down(centred(self.energies(x, tokens * self.stride // self.hop), tokens, self.down))
        if self.film is not None and condition is not None:
            h = self.film(h, condition.vector)
        h = h.transpose(1, 2)  # [B, T, W]
        for block in self.blocks:
            h = block(h)
        kept = self.keep(F.gelu(h))
        kept = torch.cat([kept, leaky_means(kept, self.memory)], 2)
        return self.norm(self.end(F.gelu(self.mix(kept))))  # [B, T, D]

    def energies(self, x: Tensor, steps: int) -> Tensor:
        """Log energy in each band of each channel [B, C * bands, steps], a step every `hop` samples; of order 1."""
        waves = self.bank(centred(x.flatten(0, 1)[:, None], steps, self.bank))
        real, imaginary = waves.unflatten(0, x.shape[:2]).chunk(2, dim=2)
        return (real.square() + imaginary.square() + self.floor).log().flatten(1, 2) / 4 + 1


def centred(x: Tensor, steps: int, conv: nn.Conv1d) -> Tensor:
    """`x` [B, C, L] with zeros around, so that `conv` gives `steps` outputs whose strides lie amid what they see."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    total = (steps - 1) * stride + kernel - x.shape[-1]
    left = max(0, (kernel - stride) // 2)
    return F.pad(x, (left, max(0, total - left)))


def wavelets(bands: int, kernel: int) -> Tensor:
    """[2 * bands, 1, kernel], real parts then imaginary ones, from 1.5 periods in a kernel to 0.45 a sample.

    Gaussian windows of norm 1 with a standard deviation of two periods, at most a fifth of the kernel.
    """
    frequency = torch.logspace(math.log10(1.5 / kernel), math.log10(0.45), bands)[:, None]
    time = torch.arange(kernel) - (kernel - 1) / 2
    window = torch.exp(-0.5 * (time / (2 / frequency).clamp_max(kernel / 5)) ** 2)
    wave = torch.polar(window / window.norm(dim=1, keepdim=True), 2 * math.pi * frequency * time)
    return torch.cat([wave.real, wave.imag])[:, None]


def leaky_means(x: Tensor, memory: tuple[float, ...]) -> Tensor:
    """[B, T, 2 * M * W]: means of `x` [B, T, W] over the tokens before each and over those behind it.

    Of the M times in `memory` each weights a token n tokens away by exp(-n / time), up to 5 of the longest. Where there
    is none before or behind, it is the token itself.
    """
    if not memory:
        return x[..., :0]
    tokens, reach = x.shape[1], math.ceil(5 * max(memory))
    place, means = torch.arange(tokens, device=x.device), []
    for start in range(0, tokens, CHUNK):
        first, stop, last = max(0, start - reach), min(start + CHUNK, tokens), min(start + CHUNK + reach, tokens)
        away = place[first:last] - place[start:stop, None]  # [t, s]
        fall = torch.stack([torch.exp(-away.abs() / time) for time in memory]) * (away.abs() <= reach)
        itself = 1e-6 * (away == 0)
        weights = torch.cat([fall * (away < 0) + itself, fall * (away > 0) + itself])  # [2 M, t, s]
        weights = (weights / weights.sum(2, keepdim=True)).to(x.dtype)
        means.append(torch.einsum("mts,bsw->btmw", weights, x[:, first:last]).flatten(2))
    return torch.cat(means, 1)


class PointBlock(nn.Module):
    """x + linear(GELU(linear(layer norm(x)))), the last starting at zero. [..., W] -> [..., W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, last = nn.Linear(width, width), silent(nn.Linear(width, width))
        self.net = nn.Sequential(nn.LayerNorm(width), first, nn.GELU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """Each token by itself."""
        return x + self.net(x)
