"""The mirror of the lapped encoder: a residual network at the rate of the tokens, then overlap-add."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge, Gt, MultipleOf
from torch import Tensor

from vqtool.api import Condition, Decoder
from vqtool.nn.activation import Activation
from vqtool.nn.lapped import Synthesis
from vqtool.nn.refine import Refine


class LappedDecoder(Decoder):
    """[B, T, D] -> [B, C, T * stride]: x = overlap-add of MDCT^T (z + f(z)), f starting at zero.

    The residual network sees the tokens around each one and learns what their errors have in common.
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        length: int,
        stride: int,
        condition_dim: int = 0,
        *,
        span: Annotated[int, Ge(2), MultipleOf(2), Doc("hops that one token's linear map writes")] = 2,
        width: Annotated[int, Gt(0), Doc("channels of the residual network")] = 128,
        blocks: Annotated[int, Ge(0), Doc("residual blocks; 0: the linear transform alone")] = 0,
        kernel: Annotated[int, Gt(0), Doc("kernel of the residual network, in tokens")] = 5,
        activation: Annotated[Activation, Doc("the nonlinearity of the residual network")] = "gelu",
    ) -> None:
        super().__init__()
        self.refine = Refine(
            dim, width=width, blocks=blocks, kernel=kernel, condition_dim=condition_dim, act=activation
        )
        self.map = Synthesis(channels, stride, dim, span)

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """Decode `z` [B, T, D]."""
        vector = condition.vector if condition is not None else None
        return self.map(self.refine(z.transpose(1, 2), vector).transpose(1, 2))

    @property
    def reach(self) -> int:
        """How many tokens before and after its own a sample depends on at most."""
        return self.refine.reach + self.map.span // 2
