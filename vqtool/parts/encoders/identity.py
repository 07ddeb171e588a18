"""Latents as they are: for a quantizer whose encoder is elsewhere."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Condition, Encoder, expect_windows


class IdentityEncoder(Encoder):
    """[B, D, T] -> [B, T, D]: the channels of the data are the features of the tokens."""

    stride = 1

    def __init__(self, channels: int, length: int, condition_dim: int = 0) -> None:
        super().__init__()
        expect_windows(length, "the encoder `identity`", otherwise="conv2d")
        self.dim = channels

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """The same numbers with the features last."""
        return x.transpose(1, 2)
