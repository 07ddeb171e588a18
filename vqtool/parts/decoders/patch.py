"""The mirror of the patch encoder: one linear map per token, then a convolutional refinement."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge, Gt
from torch import Tensor, nn

from vqtool.api import Condition, Decoder, expect_windows
from vqtool.layers.conv import Padding
from vqtool.layers.init import orthonormal
from vqtool.layers.refine import Refine


class PatchDecoder(Decoder):
    """[B, T, D] -> [B, C, T * stride]; the refinement sees the whole window and the condition."""

    def __init__(
        self,
        dim: int,
        channels: int,
        length: int,
        stride: int,
        condition_dim: int = 0,
        *,
        width: Annotated[int, Gt(0), Doc("channels of the refinement")] = 32,
        blocks: Annotated[int, Ge(0), Doc("residual blocks of the refinement; 0: none")] = 0,
        kernel: Annotated[int, Gt(0), Doc("kernel of the refinement, in samples")] = 9,
        padding: Annotated[Padding, Doc("circular: a window is one period of a periodic signal")] = "zeros",
    ) -> None:
        super().__init__()
        expect_windows(length, "the decoder `patch`", otherwise="conv2d")
        self.channels = channels
        self.map = orthonormal(nn.Linear(dim, channels * stride))
        self.refine = Refine(
            channels, width=width, blocks=blocks, kernel=kernel, condition_dim=condition_dim, mode=padding
        )

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """Decode `z` [B, T, D]."""
        patches = self.map(z).unflatten(-1, (self.channels, -1))  # [B, T, C, P]
        x = patches.transpose(1, 2).flatten(2)
        return self.refine(x, condition.vector if condition is not None else None)
