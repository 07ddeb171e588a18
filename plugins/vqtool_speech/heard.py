"""Pairs of sounds as the measures of listening take them: one channel at 16 kHz, without what fills a row up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import DataSpec, UnfitError, expect_windows
from vqtool_speech import audio

RATE = 16_000  # Hz
SOUND = (8_000, 192_000)  # Hz, the rates of what is meant to be heard
Sound = NDArray[np.float64]


def rate_of(spec: DataSpec, who: str) -> int:
    """The sampling rate in Hz; raises `UnfitError` where the data are no sound of a known rate."""
    expect_windows(spec.extent, who, otherwise="psnr")
    if not SOUND[0] <= (spec.sample_rate or 0) <= SOUND[1]:
        theirs = f"{spec.sample_rate:g} Hz" if spec.sample_rate else "none"
        raise UnfitError(f"{who} needs a sound of 8 to 192 kHz, and the data's rate is {theirs}", hint="leave it out")
    return round(spec.sample_rate)


def heard(rate: int, x: Tensor, x_hat: Tensor, samples: Tensor | None) -> Iterator[tuple[Sound, Sound]]:
    """Each channel of each row of `x` and `x_hat` [B, C, L] at `rate`, of which `samples` [B] are real, at `RATE`."""
    ends = samples.tolist() if samples is not None else [x.shape[-1]] * len(x)
    for before, after, end in zip(x, x_hat, ends, strict=True):
        pair = [one[:, : int(end)].detach().cpu().double().numpy().T for one in (before, after)]
        pair = [audio.resample(np.ascontiguousarray(one), rate, RATE) for one in pair]
        yield from zip(pair[0].T, pair[1].T, strict=True)
