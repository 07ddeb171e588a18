"""A linear map of the tokens of a window or an image, corrected by transformer blocks; and the blocks' options."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Annotated, Literal, cast

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from vqtool.errors import VqtoolError
from vqtool.layers.attention import Block, FilmNorm, circular_angles, rotary_angles
from vqtool.layers.init import zeroed

Width = Annotated[int, Gt(0), Doc("features inside")]
Layers = Annotated[int, Ge(1), Doc("transformer blocks")]
Heads = Annotated[int, Gt(0), Doc("attention heads; must divide `width`")]
Dropout = Annotated[float, Interval(ge=0, lt=1), Doc("share of features dropped in training")]
Positions = Annotated[
    Literal["rotary", "circular", "learned"],
    Doc("rotary: for any size; circular: a window is one period; learned: one for each token"),
]


class TokenTransformer(nn.Module):
    """[B, T, inputs] -> [B, T, outputs]: a linear map of each token, to which blocks add what the other tokens say.

    At first the blocks add nothing, and the map keeps its inputs as they are: as many of them as there are outputs. A
    condition's vector modulates every norm. `grid` says how many tokens lie along each axis, one of windows and two of
    images, whose tokens come row after row. Rotary positions are relative, along each axis, and hold for any number of
    tokens; those of "circular" go round, for windows that are one period; learned ones hold for the first tokens of as
    many as were trained.

    Raises:
        VqtoolError: `heads` and `positions` do not fit `width`, or `positions` do not fit the grid.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
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
        self.start = nn.Linear(inputs, width)
        self.places = nn.Parameter(0.02 * torch.randn(prod(grid), width)) if positions == "learned" else None
        self.blocks = nn.ModuleList(
            Block(width, heads, condition_dim, dropout, causal=causal, cross=False) for _ in range(layers)
        )
        self.norm = FilmNorm(width, condition_dim)
        self.drop = nn.Dropout(dropout)
        self.end = zeroed(nn.Linear(width, outputs))
        self.own = nn.Linear(inputs, outputs, bias=False)
        nn.init.eye_(self.own.weight)

    def forward(self, x: Tensor, vector: Tensor | None = None, *, grid: tuple[int, ...] | None = None) -> Tensor:
        """Map the tokens `x`.

        Args:
            x: [B, T, inputs].
            vector: [B, M] of the condition.
            grid: how many tokens lie along each axis; without it as many as in training, of windows T.

        Raises:
            VqtoolError: more tokens than there are learned positions, or not those of an image as in training.
        """
        if grid is None:
            grid = (x.shape[1],) if len(self.grid) == 1 else self.grid
            if x.shape[1] != prod(grid):
                raise VqtoolError(f"{x.shape[1]} tokens are not an image of {grid[0]} x {grid[1]} patches")
        mapped, x = self.own(x), self.start(x)
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
            x = block(x, None, vector, None, angles=angles)
        return mapped + self.end(self.norm(x, vector))

    def angles(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        """Those of the positions [T, size / 2], in float32: half precision does not hold long ones."""
        sides = [torch.arange(side, device=device, dtype=torch.float32) for side in grid]
        places = torch.cartesian_prod(*sides).view(-1, len(grid))
        if self.positions == "circular":
            return circular_angles(places, self.size, grid[0])
        return rotary_angles(places, self.size)
