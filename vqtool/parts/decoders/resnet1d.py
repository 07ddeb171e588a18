"""The mirror of the resnet1d encoder: residual blocks and doubling convolutions around a linear map."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import Condition, Decoder, expect_windows
from vqtool.errors import VqtoolError
from vqtool.layers.conv import Conv, Padding, ResidualBlock
from vqtool.layers.init import zeroed


class Resnet1dDecoder(Decoder):
    """[B, T, D] -> [B, C, T * stride] for any T: the stack corrects a linear map of each token to its own samples."""

    def __init__(
        self,
        dim: int,
        channels: int,
        length: int,
        stride: int,
        condition_dim: int = 0,
        *,
        width: Annotated[int, Gt(1), Doc("channels inside")] = 128,
        blocks: Annotated[int, Ge(0), Doc("residual blocks")] = 2,
        kernel: Annotated[int, Gt(0), Doc("kernel of the residual blocks, in tokens")] = 3,
        padding: Annotated[Padding, Doc("what a window sees beyond its ends")] = "zeros",
    ) -> None:
        super().__init__()
        expect_windows(length, "the decoder `resnet1d`", otherwise="conv2d")
        if stride & (stride - 1):
            raise VqtoolError(f"the decoder doubles the rate, and the encoder's stride {stride} is not a power of two")
        doublings = stride.bit_length() - 1
        widths = [width, *(max(1, width >> (i + 1)) for i in range(doublings))]
        self.start = Conv(dim, width, kernel, mode=padding)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, kernel, condition_dim=condition_dim, mode=padding) for _ in range(blocks)
        )
        self.grow = nn.ModuleList(
            nn.ConvTranspose1d(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.end = zeroed(Conv(widths[-1], channels, kernel, mode=padding))
        self.channels, self.patch = channels, nn.Linear(dim, channels * stride)
        nn.init.zeros_(self.patch.bias)
        nn.init.eye_(self.patch.weight)

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """Decode `z` [B, T, D]; the condition's vector modulates every residual block."""
        vector = condition.vector if condition is not None else None
        h = self.start(z.transpose(1, 2))
        for block in self.blocks:
            h = block(h, vector)
        h = F.gelu(h)
        for grow in self.grow:
            h = F.gelu(grow(h))
        own = self.patch(z).unflatten(-1, (self.channels, -1)).permute(0, 2, 1, 3).flatten(2)
        return own + self.end(h)
