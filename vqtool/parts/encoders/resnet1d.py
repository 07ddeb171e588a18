"""Halving convolutions and residual blocks around a linear map: a token for every `factor` samples."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import Condition, Encoder, expect_windows
from vqtool.errors import VqtoolError
from vqtool.layers.conv import Conv, Padding, ResidualBlock, pad
from vqtool.layers.init import zeroed


class Resnet1dEncoder(Encoder):
    """[B, C, L] -> [B, ceil(L / factor), D] for any L: the stack of TOTEM's VQ-VAE (arXiv 2402.16412, 3.2).

    The stack corrects a linear map of a token's own samples, which keeps them as they are; it starts at no correction.
    So the first codebook is already that of plain samples, and what is learned is what neighbours add.
    A length that is not a multiple of the factor is filled up on the left with its first sample, so that the last token
    always ends with the last sample.
    """

    def __init__(
        self,
        channels: int,
        length: int,
        condition_dim: int = 0,
        *,
        dim: Annotated[int, Gt(0), Doc("features per token, D")] = 64,
        width: Annotated[int, Gt(1), Doc("channels inside")] = 128,
        factor: Annotated[int, Ge(1), Doc("samples per token, a power of two")] = 4,
        blocks: Annotated[int, Ge(0), Doc("residual blocks")] = 2,
        kernel: Annotated[int, Gt(0), Doc("kernel of the residual blocks, in tokens")] = 3,
        padding: Annotated[Padding, Doc("what a window sees beyond its ends")] = "zeros",
    ) -> None:
        super().__init__()
        expect_windows(length, "the encoder `resnet1d`", otherwise="conv2d")
        self.dim, self.stride = dim, factor
        halvings = halvings_of(factor)
        widths = [channels, *(max(1, width >> (halvings - 1 - i)) for i in range(halvings))]
        self.halve = nn.ModuleList(Conv(before, after, 4, stride=2, mode=padding) for before, after in pairwise(widths))
        self.start = Conv(widths[-1], width, kernel, mode=padding)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, kernel, condition_dim=condition_dim, mode=padding) for _ in range(blocks)
        )
        self.end = zeroed(nn.Conv1d(width, dim, 1))
        self.patch = nn.Linear(channels * factor, dim, bias=False)
        nn.init.eye_(self.patch.weight)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """Encode `x` [B, C, L]; the condition's vector modulates every residual block."""
        vector = condition.vector if condition is not None else None
        x = h = pad(x, -x.shape[-1] % self.stride, 0, "replicate")
        for halve in self.halve:
            h = F.gelu(halve(h))
        h = self.start(h)
        for block in self.blocks:
            h = block(h, vector)
        own = self.patch(x.unflatten(-1, (-1, self.stride)).transpose(1, 2).flatten(2))
        return own + self.end(F.gelu(h)).transpose(1, 2)  # [B, T, D]


def halvings_of(factor: int) -> int:
    """How often `factor` can be halved until it is 1."""
    if factor & (factor - 1):
        raise VqtoolError(f"the factor {factor} is not a power of two", hint="factor = 4")
    return factor.bit_length() - 1
