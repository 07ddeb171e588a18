"""Strided 1-D convolutions with residual blocks: a token for every product-of-strides samples."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any

from annotated_doc import Doc
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn

from vqtool.api import Condition, Encoder, expect_windows, not_streaming
from vqtool.errors import VqtoolError
from vqtool.layers.activation import Activation
from vqtool.layers.conv import Conv, Padding, ResidualBlock, Stages, continued


class Conv1dEncoder(Encoder):
    """[B, C, L] -> [B, L / stride, D]; the stride is the product of `strides` and must divide the length."""

    def __init__(
        self,
        channels: int,
        length: int,
        condition_dim: int = 0,
        *,
        dim: Annotated[int, Gt(0), Doc("features per token, D")] = 64,
        width: Annotated[int, Gt(0), Doc("channels inside")] = 64,
        strides: Annotated[tuple[int, ...], MinLen(1), Doc("downsampling of each stage")] = (4, 4, 2),
        blocks: Annotated[int, Ge(0), Doc("residual blocks per stage")] = 1,
        kernel: Annotated[int, Gt(0), Doc("kernel of the residual blocks, in samples of their stage")] = 5,
        padding: Annotated[Padding, Doc("circular: a window is one period of a periodic signal")] = "zeros",
        causal: Annotated[bool, Doc("no token sees a later sample than its own last one")] = False,
        activation: Annotated[Activation, Doc("the nonlinearity of the residual blocks")] = "gelu",
        weight_norm: Annotated[bool, Doc("train the gain and direction of each filter separately")] = False,
    ) -> None:
        super().__init__()
        self.dim, self.stride, self.causal = dim, prod(strides), causal
        check_length(length, self.stride)
        how: dict[str, Any] = {"mode": padding, "causal": causal, "normed": weight_norm}
        inner = how | {"condition_dim": condition_dim, "act": activation}
        self.start = Conv(channels, width, kernel, **how)
        self.stages = Stages(
            [
                *(ResidualBlock(width, kernel, **inner) for _ in range(blocks)),
                Conv(width, width, 2 * stride if stride > 1 else kernel, stride=stride, **how),
            ]
            for stride in strides
        )
        self.end = nn.Conv1d(width, dim, 1)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """Encode `x` [B, C, L]; the condition's vector modulates every residual block."""
        vector = condition.vector if condition is not None else None
        return self.end(self.stages(self.start(x), vector)).transpose(1, 2)  # [B, T, D]

    def streaming(self) -> nn.Module:
        """With `causal`, a copy that remembers the ends of the pieces before in every convolution."""
        if not self.causal:
            raise not_streaming("encoder", self, "`causal` is false: a token depends on later samples")
        return continued(self)


def check_length(length: int, stride: int) -> None:
    """A window must be of samples in a row, and hold a whole number of tokens."""
    expect_windows(length, "the encoder `conv1d`", otherwise="conv2d")
    if length % stride:
        raise VqtoolError(
            f"a window of {length} samples is not a multiple of the encoder's total stride {stride}",
            hint=f"choose strides whose product divides {length}, or another window length",
        )
