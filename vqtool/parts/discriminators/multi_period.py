"""Judges a signal folded at several periods (HiFi-GAN)."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch.nn.functional as F
from annotated_doc import Doc
from annotated_types import Gt, MinLen
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vqtool.api import Discriminator
from vqtool.errors import VqtoolError


class MultiPeriodDiscriminator(Discriminator):
    """Signals [B, C, L] as [B, C, L / p, p] for each period p, through convolutions along the first of these axes.

    After Kong et al. 2020 (HiFi-GAN, arXiv 2010.05646). The end is padded with zeros to whole periods.
    """

    def __init__(
        self,
        channels: int,
        length: int | tuple[int, ...],
        *,
        periods: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1), Doc("samples of each")] = (
            2,
            3,
            5,
            7,
            11,
        ),
        width: Annotated[int, Gt(0), Doc("channels of the first convolution; each one multiplies them by four")] = 32,
        layers: Annotated[int, Gt(0), Doc("convolutions of stride three")] = 4,
        widest: Annotated[int, Gt(0), Doc("the most channels of a convolution")] = 1024,
    ) -> None:
        super().__init__()
        if isinstance(length, tuple):
            raise VqtoolError("the discriminator `multi-period` needs windows [C, L]", hint="patch2d is for images")
        if max(periods) > length:
            raise VqtoolError(f"a period of {max(periods)} samples is longer than the signal of {length}",
                              hint="smaller `periods`")  # fmt: skip
        widths = [channels, *(min(widest, width * 4**i) for i in range(layers))]
        self.periods = nn.ModuleList(_Period(period, widths) for period in periods)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        return [period(x) for period in self.periods]


class _Period(nn.Module):
    """One period."""

    def __init__(self, period: int, widths: list[int]) -> None:
        super().__init__()
        self.period = period
        convs = [nn.Conv2d(before, after, (5, 1), stride=(3, 1), padding=(2, 0))
                 for before, after in pairwise(widths)]  # fmt: skip
        convs += [nn.Conv2d(widths[-1], widths[-1], (5, 1), padding=(2, 0))]
        self.convs = nn.ModuleList(weight_norm(conv) for conv in convs)
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, x: Tensor) -> list[Tensor]:
        h = F.pad(x, (0, -x.shape[-1] % self.period)).unflatten(-1, (-1, self.period))
        found: list[Tensor] = []
        for conv in self.convs:
            h = F.leaky_relu(conv(h), 0.2)
            found.append(h)
        return [*found, self.last(h)]
