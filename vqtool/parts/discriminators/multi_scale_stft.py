"""Judges a signal by its complex spectrograms at several resolutions (EnCodec)."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_doc import Doc
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vqtool.api import Discriminator
from vqtool.errors import VqtoolError


class MultiScaleStftDiscriminator(Discriminator):
    """Signals [B, C, L]: real and imaginary part of each short-time Fourier transform through 2-D convolutions.

    After Défossez et al. 2022 (EnCodec, arXiv 2210.13438): Hann windows, a quarter of one from frame to frame;
    convolutions that are dilated along time and halve the frequencies.
    """

    def __init__(
        self,
        channels: int,
        length: int | tuple[int, ...],
        *,
        windows: Annotated[
            tuple[Annotated[int, Ge(8)], ...],
            MinLen(1),
            Doc("samples of the window of each scale; those longer than the signal are left out"),
        ] = (2048, 1024, 512, 256, 128),
        width: Annotated[int, Gt(0), Doc("channels of the convolutions")] = 32,
        dilations: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1), Doc("along time, one a convolution")] = (
            1,
            2,
            4,
        ),
    ) -> None:
        super().__init__()
        if isinstance(length, tuple):
            raise VqtoolError("the discriminator `multi-scale-stft` needs windows [C, L]", hint="patch2d is for images")
        fitting = [samples for samples in windows if samples <= length]
        if not fitting:
            raise VqtoolError(f"every window of the discriminator is longer than the signal of {length} samples",
                              hint=f"windows = [{max(8, length // 2)}]")  # fmt: skip
        self.scales = nn.ModuleList(_Scale(channels, samples, width, dilations) for samples in fitting)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        return [scale(x) for scale in self.scales]


class _Scale(nn.Module):
    """One resolution: features [B, W, frames, frequencies], each with fewer frequencies, then logits."""

    window: Tensor

    def __init__(self, channels: int, samples: int, width: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.samples = samples
        self.register_buffer("window", torch.hann_window(samples), persistent=False)
        convs = [nn.Conv2d(2 * channels, width, (3, 9), padding=(1, 4))]
        convs += [
            nn.Conv2d(width, width, (3, 9), stride=(1, 2), dilation=(dilation, 1), padding=(dilation, 4))
            for dilation in dilations
        ]
        convs += [nn.Conv2d(width, width, 3, padding=1)]
        self.convs = nn.ModuleList(weight_norm(conv) for conv in convs)
        self.last = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, x: Tensor) -> list[Tensor]:
        with torch.autocast(x.device.type, enabled=False):  # there is no transform in half precision
            seen = torch.stft(x.float().flatten(0, 1), self.samples, self.samples // 4, window=self.window,
                              center=False, normalized=True, return_complex=True)  # fmt: skip
            parts = torch.view_as_real(seen).unflatten(0, x.shape[:2])  # [B, C, frequencies, frames, 2]
        h = parts.permute(0, 1, 4, 3, 2).flatten(1, 2)
        found: list[Tensor] = []
        for conv in self.convs:
            h = F.leaky_relu(conv(h), 0.2)
            found.append(h)
        return [*found, self.last(h)]
