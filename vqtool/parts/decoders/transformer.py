"""The mirror of the transformer encoder: tokens that see all others, each mapped to its patch."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from torch import Tensor

from vqtool.api import Condition, Decoder
from vqtool.layers.patches import Extent, from_patches, grid_of, patch_of
from vqtool.layers.token_transformer import Dropout, Heads, Layers, Positions, TokenTransformer, Width


class TransformerDecoder(Decoder):
    """[B, T, D] -> [B, C, T * stride]; of images [B, C, H, W], of tokens that are square patches, row after row.

    The blocks correct a linear map of each token to its own patch.
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        length: Extent,
        stride: int,
        condition_dim: int = 0,
        *,
        width: Width = 128,
        layers: Layers = 3,
        heads: Heads = 4,
        positions: Positions = "rotary",
        causal: Annotated[bool, Doc("no sample depends on a later token than its own")] = False,
        dropout: Dropout = 0.0,
    ) -> None:
        super().__init__()
        self.patch = patch_of(length, stride)
        self.grid = grid_of(length, self.patch)
        self.blocks = TokenTransformer(
            dim,
            channels * stride,
            self.grid,
            condition_dim,
            width=width,
            layers=layers,
            heads=heads,
            dropout=dropout,
            positions=positions,
            causal=causal,
        )

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """Decode `z` [B, T, D]; the condition's vector modulates every block."""
        vector = condition.vector if condition is not None else None
        return from_patches(self.blocks(z, vector), self.patch, self.grid)
