"""The mirror of the conv1d encoder: tokens back to samples by transposed convolutions."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt
from torch import Tensor, nn

from vqtool.api import Condition, Decoder, expect_windows, not_streaming
from vqtool.errors import VqtoolError
from vqtool.layers.activation import Activation
from vqtool.layers.conv import Conv, Padding, ResidualBlock, Stages, continued


class Conv1dDecoder(Decoder):
    """[B, T, D] -> [B, C, T * stride]; kernel = stride, so upsampling leaves no checkerboard."""

    def __init__(
        self,
        dim: int,
        channels: int,
        length: int,
        stride: int,
        condition_dim: int = 0,
        *,
        width: Annotated[int, Gt(0), Doc("channels inside")] = 64,
        strides: Annotated[
            tuple[int, ...], Doc("upsampling of each stage; empty: the encoder's factor in 2s and 4s")
        ] = (),
        blocks: Annotated[int, Ge(0), Doc("residual blocks per stage")] = 1,
        kernel: Annotated[int, Gt(0), Doc("kernel of the residual blocks, in samples of their stage")] = 5,
        padding: Annotated[Padding, Doc("circular: a window is one period of a periodic signal")] = "zeros",
        causal: Annotated[bool, Doc("no sample depends on a later token than its own")] = False,
        activation: Annotated[Activation, Doc("the nonlinearity of the residual blocks")] = "gelu",
        weight_norm: Annotated[bool, Doc("train the gain and direction of each filter separately")] = False,
        output_scale: Annotated[bool, Doc("a trained gain on the output, 1 at first")] = False,
    ) -> None:
        super().__init__()
        expect_windows(length, "the decoder `conv1d`", otherwise="conv2d")
        factors = strides or factors_of(stride)
        if prod(factors) != stride:
            raise VqtoolError(
                f"the decoder's strides multiply to {prod(factors)}, the encoder's to {stride}",
                hint="give both the same factors, the decoder's in reverse order",
            )
        how: dict[str, Any] = {"mode": padding, "causal": causal, "normed": weight_norm}
        inner = how | {"condition_dim": condition_dim, "act": activation}
        self.causal = causal
        self.start = nn.Conv1d(dim, width, 1)
        self.stages = Stages(
            [
                nn.ConvTranspose1d(width, width, factor, factor),
                *(ResidualBlock(width, kernel, **inner) for _ in range(blocks)),
            ]
            for factor in factors
        )
        self.end = Conv(width, channels, kernel, **how)
        self.scale = nn.Parameter(torch.ones(())) if output_scale else None

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """Decode `z` [B, T, D]; the condition's vector modulates every residual block."""
        vector = condition.vector if condition is not None else None
        x = self.end(self.stages(self.start(z.transpose(1, 2)), vector))
        return x if self.scale is None else x * self.scale

    def streaming(self) -> nn.Module:
        """With `causal`, a copy that remembers the ends of the pieces before in every convolution."""
        if not self.causal:
            raise not_streaming("decoder", self, "`causal` is false: a sample depends on later tokens")
        return continued(self)


def factors_of(stride: int) -> tuple[int, ...]:
    """`stride` as a product of 4s, 2s and what is left, the smallest steps first."""
    left, factors = stride, []
    for factor in (4, 2):
        while left % factor == 0 and left > 1:
            factors.append(factor)
            left //= factor
    return tuple(reversed(factors + ([left] if left > 1 else []))) or (1,)
