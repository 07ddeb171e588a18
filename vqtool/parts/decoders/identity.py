"""Latents as they are: for a quantizer whose decoder is elsewhere."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Condition, Decoder, expect_windows


class IdentityDecoder(Decoder):
    """[B, T, D] -> [B, D, T]: the mirror of the identity encoder."""

    def __init__(self, dim: int, channels: int, length: int, stride: int, condition_dim: int = 0) -> None:
        super().__init__()
        expect_windows(length, "the decoder `identity`", otherwise="conv2d")

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The same numbers with the tokens last."""
        return z.transpose(1, 2)
