"""The mirror of the transformer encoder: tokens that see all others, each mapped to its patch."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from vqtool.api import Condition, Decoder
from vqtool.layers.init import zeroed
from vqtool.layers.patches import Extent, from_patches, grid_of, patch_of
from vqtool.layers.token_transformer import Positions, TokenTransformer


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
        width: Annotated[int, Gt(0), Doc("features inside")] = 128,
        layers: Annotated[int, Ge(1), Doc("transformer blocks")] = 3,
        heads: Annotated[int, Gt(0), Doc("attention heads; must divide `width`")] = 4,
        positions: Annotated[
            Positions, Doc("rotary: for any length; circular: a window is one period; learned: one for each token")
        ] = "rotary",
        causal: Annotated[bool, Doc("no sample depends on a later token than its own")] = False,
        dropout: Annotated[float, Interval(ge=0, lt=1), Doc("share of features dropped in training")] = 0.0,
    ) -> None:
        super().__init__()
        self.patch = patch_of(length, stride)
        self.grid = grid_of(length, self.patch)
        self.start = nn.Linear(dim, width)
        self.blocks = TokenTransformer(
            self.grid,
            condition_dim,
            width=width,
            layers=layers,
            heads=heads,
            dropout=dropout,
            positions=positions,
            causal=causal,
        )
        self.end = zeroed(nn.Linear(width, channels * stride))
        self.own = nn.Linear(dim, channels * stride, bias=False)
        nn.init.eye_(self.own.weight)

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """Decode `z` [B, T, D]; the condition's vector modulates every block."""
        vector = condition.vector if condition is not None else None
        patches = self.own(z) + self.end(self.blocks(self.start(z), vector))
        return from_patches(patches, self.patch, self.grid)
