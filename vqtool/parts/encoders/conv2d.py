"""Images through 2-D convolutions to a fixed number of tokens, each of which sees the whole image."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_doc import Doc
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn

from vqtool.api import Condition, Encoder
from vqtool.errors import VqtoolError
from vqtool.layers.init import silent


class Conv2dEncoder(Encoder):
    """[B, C, H, W] -> [B, T, D]: a stage of residual blocks for every entry of `widths`, each halving H and W.

    A linear map of all that is left gives the tokens, so every token describes the whole image. The condition is not
    read.
    """

    def __init__(
        self,
        channels: int,
        length: int | tuple[int, int],
        condition_dim: int = 0,
        *,
        tokens: Annotated[int, Gt(0), Doc("tokens per image; a divisor of its pixels")] = 16,
        dim: Annotated[int, Gt(0), Doc("features per token, D")] = 32,
        widths: Annotated[tuple[int, ...], MinLen(1), Doc("channels of each stage; a stage halves the image")] = (
            32,
            64,
        ),
        blocks: Annotated[int, Ge(0), Doc("residual blocks per stage")] = 1,
        features: Annotated[int, Gt(0), Doc("width of the bottleneck before the tokens")] = 256,
    ) -> None:
        super().__init__()
        if not isinstance(length, tuple) or len(length) != 2:
            raise VqtoolError("the encoder `conv2d` needs images [C, H, W]", hint="conv1d is for windows [C, L]")
        height, width = length
        if height * width % tokens:
            raise VqtoolError(f"{height} x {width} pixels are not a multiple of {tokens} tokens")
        self.dim, self.tokens, self.stride = dim, tokens, height * width // tokens
        stages: list[nn.Module] = []
        for before, after in zip((channels, *widths), widths, strict=False):
            stages += [_Down(before, after), *(_Residual(after) for _ in range(blocks))]
            height, width = -(-height // 2), -(-width // 2)
        self.stages = nn.Sequential(*stages)
        self.stages.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
        self.bottleneck = nn.Linear(widths[-1] * height * width, features)
        self.end = nn.Linear(features, tokens * dim)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        h = self.stages(x.contiguous(memory_format=torch.channels_last))
        h = F.relu(self.bottleneck(h.flatten(1)))
        return self.end(h).unflatten(1, (self.tokens, self.dim))


class _Down(nn.Module):
    """Halves both sides, rounding up."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class _Residual(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), the last norm starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels), silent(nn.BatchNorm2d(channels))])

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norms[0](self.first(x)))
        return F.relu(x + self.norms[1](self.second(h)))
