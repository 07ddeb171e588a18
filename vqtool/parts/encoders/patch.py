"""Patches of samples through one linear map that starts orthonormal, after a convolutional refinement."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge, Gt
from torch import Tensor, nn

from vqtool.api import Condition, Encoder, expect_windows
from vqtool.errors import VqtoolError
from vqtool.layers.conv import Padding
from vqtool.layers.init import orthonormal
from vqtool.layers.refine import Refine


class PatchEncoder(Encoder):
    """[B, C, L] -> [B, L / patch, D]. At first a distance between tokens is one between signals, so a k-means start of
    the codebooks is already a fair codec, and training only improves on it.
    """

    def __init__(
        self,
        channels: int,
        length: int,
        condition_dim: int = 0,
        *,
        patch: Annotated[int, Gt(0), Doc("samples per token; 0 < patch, a divisor of the window length")] = 16,
        dim: Annotated[int, Ge(0), Doc("features per token; 0: as many as a patch has numbers")] = 0,
        width: Annotated[int, Gt(0), Doc("channels of the refinement")] = 32,
        blocks: Annotated[int, Ge(0), Doc("residual blocks of the refinement; 0: none")] = 0,
        kernel: Annotated[int, Gt(0), Doc("kernel of the refinement, in samples")] = 9,
        padding: Annotated[Padding, Doc("circular: a window is one period of a periodic signal")] = "zeros",
    ) -> None:
        super().__init__()
        expect_windows(length, "the encoder `patch`", otherwise="conv2d")
        if length % patch:
            raise VqtoolError(
                f"a window of {length} samples is not a multiple of the patch of {patch}",
                hint=f"choose a patch that divides {length}",
            )
        self.stride = patch
        self.dim = dim or channels * patch
        self.refine = Refine(
            channels, width=width, blocks=blocks, kernel=kernel, condition_dim=condition_dim, mode=padding
        )
        self.map = orthonormal(nn.Linear(channels * patch, self.dim))

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """Encode `x` [B, C, L]."""
        x = self.refine(x, condition.vector if condition is not None else None)
        patches = x.unflatten(-1, (-1, self.stride))  # [B, C, T, P]
        return self.map(patches.transpose(1, 2).flatten(2))
