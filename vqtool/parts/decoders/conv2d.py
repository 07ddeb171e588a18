"""The mirror of the conv2d encoder: tokens back to images by transposed convolutions."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_doc import Doc
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn

from vqtool.api import Condition, Decoder, expect_images
from vqtool.errors import VqtoolError
from vqtool.layers.conv2d import ImageNorm, Residual, Up, halved


class Conv2dDecoder(Decoder):
    """[B, T, D] -> [B, C, H, W]: a stage of residual blocks for every entry of `widths`, each doubling H and W.

    With `grid`, as the encoder has it, each token is a position of the smallest image; else all tokens together are
    mapped to it. A last block works on the whole image. The condition is not read.
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        length: tuple[int, int],
        stride: int,
        condition_dim: int = 0,
        *,
        widths: Annotated[
            tuple[int, ...], MinLen(1), Doc("channels of each stage, from the image inwards, as the encoder's")
        ] = (32, 64),
        blocks: Annotated[int, Ge(0), Doc("residual blocks per stage")] = 1,
        features: Annotated[int, Gt(0), Doc("width of the bottleneck behind the tokens; not read with `grid`")] = 256,
        grid: Annotated[bool, Doc("tokens are cells of 2^stages pixels each way, row after row")] = False,
        norm: Annotated[ImageNorm, Doc("normalisation after each convolution")] = "batch",
    ) -> None:
        super().__init__()
        expect_images(length, "the decoder `conv2d`", otherwise="conv1d")
        tokens = length[0] * length[1] // stride
        sides = [halved(length, times) for times in range(len(widths) + 1)]
        self.smallest = halved(length, len(widths), exact=grid)
        cells = self.smallest[0] * self.smallest[1]
        if grid and cells != tokens:
            raise VqtoolError(
                f"the encoder gives {tokens} tokens, and {len(widths)} doublings need a grid of {cells}",
                hint="give encoder and decoder the same number of `widths`, and both `grid = true`",
            )
        self.widest = widths[-1]
        self.start = nn.Linear(dim, widths[-1]) if grid else nn.Linear(tokens * dim, features)
        self.bottleneck = None if grid else nn.Linear(features, cells * widths[-1])
        stages: list[nn.Module] = []
        for number in reversed(range(len(widths))):
            stages += [Residual(widths[number], norm) for _ in range(blocks)]
            stages.append(Up(widths[number], widths[max(number - 1, 0)], sides[number], norm))
        self.stages = nn.Sequential(*stages)
        self.stages.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
        self.end = nn.Conv2d(widths[0], channels, 3, padding=1)

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """Tokens `z` [B, T, D] to images [B, C, H, W]."""
        if self.bottleneck is None:
            h = self.start(z).transpose(1, 2)
        else:
            h = self.bottleneck(F.relu(self.start(z.flatten(1)))).unflatten(1, (self.widest, -1))
        h = h.unflatten(2, self.smallest).contiguous(memory_format=torch.channels_last)
        return self.end(self.stages(h)).contiguous()
