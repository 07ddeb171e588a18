"""1-D convolution blocks that conv encoders, decoders and conditioners share."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from vqtool.errors import VqtoolError
from vqtool.layers.activation import Activation, activation
from vqtool.layers.init import silent, zeroed

Padding = Literal["zeros", "circular", "replicate"]


def pad(x: Tensor, left: int, right: int, mode: Padding) -> Tensor:
    """Pad the last axis; "circular" joins the ends, for signals of which a window is one whole period."""
    return F.pad(x, (left, right)) if mode == "zeros" else F.pad(x, (left, right), mode=mode)


class Conv(nn.Module):
    """A convolution [B, C, L] -> [B, C', ceil(L / stride)] with the padding done outside.

    Tokens sit in the middle of what they see; those of a `causal` one at its end, so that they see no later sample
    than the last of their own stride. `normed`: weight = gain * direction (Salimans and Kingma 2016).
    """

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        mode: Padding = "zeros",
        causal: bool = False,
        normed: bool = False,
    ) -> None:
        super().__init__()
        if causal and mode == "circular":
            raise VqtoolError('`padding = "circular"` joins the end to the start: it cannot be causal')
        conv = nn.Conv1d(channels, out, kernel, stride)
        self.conv = weight_norm(conv) if normed else conv
        self.mode: Padding = mode
        self.kernel, self.stride, self.causal = kernel, stride, causal

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, C, L]."""
        want = -(-x.shape[-1] // self.stride)
        total = max(0, (want - 1) * self.stride + self.kernel - x.shape[-1])
        left = total if self.causal else total // 2
        return self.conv(pad(x, left, total - left, self.mode))


class Continued(nn.Module):
    """A causal `Conv` that takes a signal in pieces of whole strides: it keeps the end of each for the next."""

    def __init__(self, of: Conv) -> None:
        super().__init__()
        self.weight, self.bias, self.stride = of.conv.weight.detach(), of.conv.bias, of.stride
        self.mode, self.left = of.mode, max(0, of.kernel - of.stride)
        self.past: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, C, L]."""
        x = pad(x, self.left, 0, self.mode) if self.past is None else torch.cat([self.past, x], -1)
        self.past = x[..., x.shape[-1] - self.left :]
        return F.conv1d(x, self.weight, self.bias, self.stride)


def continued(network: nn.Module) -> nn.Module:
    """A copy of a causal network, to be used and not trained, that takes a signal in pieces of whole tokens."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, Conv):
                setattr(module, name, Continued(child))
    return network


class Stages(nn.ModuleList):
    """Stages of layers, one after the other; residual blocks also read the condition's vector."""

    def __init__(self, stages: Iterable[Iterable[nn.Module]]) -> None:
        super().__init__(nn.ModuleList(stage) for stage in stages)

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """`x` [B, C, L], `vector` [B, M] or None."""
        for stage in self:
            for layer in cast(nn.ModuleList, stage):
                x = layer(x, vector) if isinstance(layer, ResidualBlock) else layer(x)
        return x


class Film(nn.Module):
    """Feature-wise scale and shift by a condition's vector (Perez et al. 2018, arXiv 1709.07871), at first none."""

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.scale_shift = zeroed(nn.Linear(condition_dim, 2 * channels))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """`x` [B, C, L], `vector` [B, M]."""
        scale, shift = self.scale_shift(vector).unsqueeze(-1).chunk(2, dim=1)
        return x * (1 + scale) + shift


class ResidualBlock(nn.Module):
    """x + conv(act(FiLM(conv(act(x))))), the last convolution starting at zero."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        *,
        condition_dim: int = 0,
        mode: Padding = "zeros",
        act: Activation = "gelu",
        causal: bool = False,
        normed: bool = False,
    ) -> None:
        super().__init__()
        self.before, self.between = activation(act, channels), activation(act, channels)
        self.first = Conv(channels, channels, kernel, mode=mode, causal=causal, normed=normed)
        self.second = Conv(channels, channels, 1, mode=mode, normed=normed)
        self.film = Film(condition_dim, channels) if condition_dim else None
        silent(self.second.conv)

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """`x` [B, C, L], `vector` [B, M] or None."""
        inner = self.first(self.before(x))
        if self.film is not None and vector is not None:
            inner = self.film(inner, vector)
        return x + self.second(self.between(inner))
