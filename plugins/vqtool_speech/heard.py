"""Pairs of sounds as the measures of listening take them: one channel at 16 kHz, without what fills a row up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import DataSpec, UnfitError, expect_windows
from vqtool_speech import audio

RATE = 16_000  # Hz
Sound = NDArray[np.float64]


def rate_of(spec: DataSpec, who: str) -> int:
    """The sampling rate in Hz; raises `UnfitError` where the data are no sound of a known rate."""
    expect_windows(spec.extent, who, otherwise="psnr")
    if not spec.sample_rate:
        raise UnfitError(f"{who} needs the sampling rate of a sound, and the data have none", hint="leave it out")
    return round(spec.sample_rate)


def heard(rate: int, x: Tensor, x_hat: Tensor, samples: Tensor | None) -> Iterator[tuple[Sound, Sound]]:
    """Each channel of each row of `x` and `x_hat` [B, C, L] at `rate`, of which `samples` [B] are real, at `RATE`."""
    ends = samples.tolist() if samples is not None else [x.shape[-1]] * len(x)
    for before, after, end in zip(x, x_hat, ends, strict=True):
        pair = [one[:, : int(end)].detach().cpu().double().numpy().T for one in (before, after)]
        pair = [audio.resample(np.ascontiguousarray(one), rate, RATE) for one in pair]
        yield from zip(pair[0].T, pair[1].T, strict=True)
