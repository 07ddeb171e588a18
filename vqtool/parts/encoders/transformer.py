"""Patches through a transformer: a token for every patch of samples or of pixels, which sees all others."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor

from vqtool.api import Condition, Encoder
from vqtool.layers.patches import Extent, grid_of, to_patches
from vqtool.layers.token_transformer import Dropout, Heads, Layers, Positions, TokenTransformer, Width


class TransformerEncoder(Encoder):
    """[B, C, L] -> [B, L / patch, D], and [B, C, H, W] -> [B, H / patch * W / patch, D] row after row.

    Patches as in ViT (Dosovitskiy et al. 2021, arXiv 2010.11929; for codes Yu et al. 2022, arXiv 2110.04627). The
    blocks correct a linear map of each patch, which at first keeps it as it is: so the first codebook is already that
    of plain patches, and what is learned is what the others add. With rotary positions windows and images may be of
    other sizes than in training.
    """

    def __init__(
        self,
        channels: int,
        length: Extent,
        condition_dim: int = 0,
        *,
        patch: Annotated[int, Gt(0), Doc("samples per token, of images pixels each way; must divide the size")] = 16,
        dim: Annotated[int, Gt(0), Doc("features per token, D")] = 64,
        width: Width = 128,
        layers: Layers = 3,
        heads: Heads = 4,
        positions: Positions = "rotary",
        causal: Annotated[bool, Doc("no token sees a later one")] = False,
        dropout: Dropout = 0.0,
    ) -> None:
        super().__init__()
        grid = grid_of(length, patch)
        self.dim, self.patch, self.stride = dim, patch, patch ** len(grid)
        self.blocks = TokenTransformer(
            channels * self.stride,
            dim,
            grid,
            condition_dim,
            width=width,
            layers=layers,
            heads=heads,
            dropout=dropout,
            positions=positions,
            causal=causal,
        )

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """`x` [B, C, L] or [B, C, H, W]; the condition's vector modulates every block."""
        patches, grid = to_patches(x, self.patch)
        vector = condition.vector if condition is not None else None
        return self.blocks(patches, vector, grid=grid)
