"""A stack of transformer blocks over the tokens of a window or an image, with their positions."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Literal, cast

import torch
from torch import Tensor, nn

from vqtool.errors import VqtoolError
from vqtool.layers.attention import Block, FilmNorm, circular_angles, rotary_angles
from vqtool.layers.padding import zero_masked

Positions = Literal["rotary", "circular", "learned"]


class TokenTransformer(nn.Module):
    """[B, T, W] -> [B, T, W]: pre-norm blocks; the condition's vector modulates every norm.

    `grid` says how many tokens lie along each axis, one of windows and two of images, whose tokens come row after row.
    Rotary positions are relative, along each axis, and hold for any number of tokens; those of "circular" go round, for
    windows that are one period; learned ones hold for the first tokens of as many as were trained.
    """

    def __init__(
        self,
        grid: tuple[int, ...],
        condition_dim: int,
        *,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
        positions: Positions,
        causal: bool = False,
    ) -> None:
        super().__init__()
        axes = len(grid)
        if width % heads:
            raise VqtoolError(f"`heads` = {heads} does not divide `width` = {width}")
        if positions != "learned" and width // heads % (2 * axes):
            raise VqtoolError(
                f"a head of {width // heads} features has no pairs to turn by {positions} positions"
                f"{' along two axes' if axes > 1 else ''}",
                hint=f'`width` a multiple of `heads` x {2 * axes}, or positions = "learned"',
            )
        if positions == "circular" and (axes > 1 or causal):
            raise VqtoolError("circular positions join the end of a window to its start: they fit neither images nor"
                              " `causal`", hint='positions = "rotary"')  # fmt: skip
        self.grid, self.positions, self.size = grid, positions, width // heads
        self.places = nn.Parameter(0.02 * torch.randn(prod(grid), width)) if positions == "learned" else None
        self.blocks = nn.ModuleList(
            Block(width, heads, condition_dim, dropout, causal=causal, cross=False) for _ in range(layers)
        )
        self.norm = FilmNorm(width, condition_dim)
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        vector: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        grid: tuple[int, ...] | None = None,
    ) -> Tensor:
        """`x` [B, T, W], `vector` [B, M]; `mask` [B, T] is true for real tokens, others reach none of them.

        Args:
            x: the tokens.
            vector: of the condition.
            mask: None: all tokens are real.
            grid: how many tokens lie along each axis; without it as many as in training, of windows T.
        """
        if grid is None:
            grid = (x.shape[1],) if len(self.grid) == 1 else self.grid
            if x.shape[1] != prod(grid):
                raise VqtoolError(f"{x.shape[1]} tokens are not an image of {grid[0]} x {grid[1]} patches")
        x = zero_masked(x, mask)
        angles = None
        if self.places is None:
            angles = self.angles(grid, x.device)
        elif grid == self.grid or (len(grid) == 1 and grid < self.grid):
            x = x + self.places[: x.shape[1]]
        else:
            sizes = [" x ".join(map(str, sides)) for sides in (grid, self.grid)]
            raise VqtoolError(f"this model takes no {sizes[0]} tokens: its learned positions are for {sizes[1]}",
                              hint='training with positions = "rotary" takes other sizes too')  # fmt: skip
        x = self.drop(x)
        for block in cast(Iterable[Block], self.blocks):
            x = block(x, None, vector, None, mask=mask, angles=angles)
        return self.norm(x, vector)

    def angles(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        """Those of the positions [T, size / 2], in float32: half precision does not hold long ones."""
        sides = [torch.arange(side, device=device, dtype=torch.float32) for side in grid]
        places = torch.cartesian_prod(*sides).view(-1, len(grid))
        if self.positions == "circular":
            return circular_angles(places, self.size, grid[0])
        return rotary_angles(places, self.size)
