"""Images through 2-D convolutions to tokens: one for each cell of a grid, or some that each see the whole image."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_doc import Doc
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn

from vqtool.api import Condition, Encoder, expect_images
from vqtool.errors import VqtoolError
from vqtool.layers.conv2d import Down, ImageNorm, Residual, halved


class Conv2dEncoder(Encoder):
    """[B, C, H, W] -> [B, T, D]: a stage of residual blocks for every entry of `widths`, each halving H and W.

    A linear map of all that is left gives the tokens, so every token describes the whole image. With `grid` each
    position that is left is a token, row after row: it describes its cell of 2^stages pixels each way, and what lies
    around it. The condition is not read.
    """

    def __init__(
        self,
        channels: int,
        length: tuple[int, int],
        condition_dim: int = 0,
        *,
        tokens: Annotated[int, Gt(0), Doc("tokens per image; a divisor of its pixels; not read with `grid`")] = 16,
        dim: Annotated[int, Gt(0), Doc("features per token, D")] = 32,
        widths: Annotated[tuple[int, ...], MinLen(1), Doc("channels of each stage; a stage halves the image")] = (
            32,
            64,
        ),
        blocks: Annotated[int, Ge(0), Doc("residual blocks per stage")] = 1,
        features: Annotated[int, Gt(0), Doc("width of the bottleneck before the tokens; not read with `grid`")] = 256,
        grid: Annotated[bool, Doc("a token for each cell of 2^stages pixels each way")] = False,
        pool: Annotated[
            bool, Doc("halve by the largest of 2 x 2 behind a convolution of every pixel; else by its stride")
        ] = False,
        norm: Annotated[ImageNorm, Doc("normalisation after each convolution")] = "batch",
    ) -> None:
        super().__init__()
        expect_images(length, "the encoder `conv2d`", otherwise="conv1d")
        pixels = length[0] * length[1]
        height, width = halved(length, len(widths), exact=grid)
        self.dim, self.tokens = dim, height * width if grid else tokens
        if pixels % self.tokens:
            raise VqtoolError(f"{length[0]} x {length[1]} pixels are not a multiple of {tokens} tokens")
        self.stride = pixels // self.tokens
        stages: list[nn.Module] = []
        for before, after in zip((channels, *widths), widths, strict=False):
            stages += [Down(before, after, norm, pool=pool), *(Residual(after, norm) for _ in range(blocks))]
        self.stages = nn.Sequential(*stages)
        self.stages.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
        self.bottleneck = None if grid else nn.Linear(widths[-1] * height * width, features)
        self.end = nn.Linear(widths[-1], dim) if grid else nn.Linear(features, tokens * dim)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """`x` [B, C, H, W] to tokens [B, T, D]."""
        h = self.stages(x.contiguous(memory_format=torch.channels_last))
        if self.bottleneck is None:
            return self.end(h.flatten(2).transpose(1, 2))
        return self.end(F.relu(self.bottleneck(h.flatten(1)))).unflatten(1, (self.tokens, self.dim))
