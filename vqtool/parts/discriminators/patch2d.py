"""Judges an image patch by patch, by 2-D convolutions (PatchGAN)."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch.nn.functional as F
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vqtool.api import Discriminator
from vqtool.errors import VqtoolError


class Patch2dDiscriminator(Discriminator):
    """Images [B, C, H, W] through convolutions that halve them; every place of the last one judges its patch.

    After Isola et al. 2017 (arXiv 1611.07004), with weight normalisation in place of batch normalisation: statistics
    of a batch would mix real and decoded images.
    """

    def __init__(
        self,
        channels: int,
        length: int | tuple[int, ...],
        *,
        width: Annotated[int, Gt(0), Doc("channels of the first convolution; each one doubles them")] = 32,
        layers: Annotated[int, Gt(0), Doc("convolutions that halve the image")] = 3,
        widest: Annotated[int, Gt(0), Doc("the most channels of a convolution")] = 256,
    ) -> None:
        super().__init__()
        if not isinstance(length, tuple):
            raise VqtoolError("the discriminator `patch2d` needs images [C, H, W]",
                              hint="multi-scale-stft and multi-period are for windows [C, L]")  # fmt: skip
        if min(length) < 2**layers:
            raise VqtoolError(f"{layers} convolutions that halve it leave nothing of an image of "
                              f"{' x '.join(map(str, length))} pixels", hint="a smaller `layers`")  # fmt: skip
        widths = [channels, *(min(widest, width * 2**i) for i in range(layers))]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)) for before, after in pairwise(widths)
        )
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        found: list[Tensor] = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
            found.append(x)
        return [[*found, self.last(x)]]
