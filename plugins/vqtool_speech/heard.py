"""Measures of listening: pairs of sounds, one channel at 16 kHz, without what fills a row up, and their mean grade."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import DataSpec, Metric, UnfitError, expect_windows
from vqtool_speech import audio

RATE = 16_000  # Hz
SOUND = (8_000, 192_000)  # Hz, the rates of what is meant to be heard
Sound = NDArray[np.float64]


def rate_of(spec: DataSpec, who: str) -> int:
    """The sampling rate in Hz; raises `UnfitError` where the data are no sound of a known rate."""
    expect_windows(spec.extent, who, otherwise="psnr")
    rate = spec.sample_rate or 0.0
    if not SOUND[0] <= rate <= SOUND[1]:
        theirs = f"{rate:g} Hz" if rate else "none"
        raise UnfitError(f"{who} needs a sound of 8 to 192 kHz, and the data's rate is {theirs}", hint="leave it out")
    return round(rate)


def heard(rate: int, x: Tensor, x_hat: Tensor, samples: Tensor | None) -> Iterator[tuple[Sound, Sound]]:
    """Each channel of each row of `x` and `x_hat` [B, C, L] at `rate`, of which `samples` [B] are real, at `RATE`."""
    ends = samples.tolist() if samples is not None else [x.shape[-1]] * len(x)
    for before, after, end in zip(x, x_hat, ends, strict=True):
        pair = [one[:, : int(end)].detach().cpu().double().numpy().T for one in (before, after)]
        pair = [audio.resample(np.ascontiguousarray(one), rate, RATE) for one in pair]
        yield from zip(pair[0].T, pair[1].T, strict=True)


class Grade(Metric):
    """The mean over channels of rows of what `grade` gives; rows without a grade are counted."""

    figure: ClassVar[str]
    counted: ClassVar[str]  # the name of how many rows have no grade

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.rate = rate_of(spec, f"the metric `{self.figure.split('.')[0]}`")
        self.values: list[float] = []
        self.silent = 0

    def grade(self, before: Sound, after: Sound) -> float | None:
        """Of a decoded sound `after`, which is finite; None where the original `before` has nothing to grade by."""
        raise NotImplementedError

    def update(self, *, x: Tensor, x_hat: Tensor, samples: Tensor | None = None) -> None:
        """`x` and `x_hat` [B, C, L], of which `samples` [B] are real."""
        for before, after in heard(self.rate, x, x_hat, samples):
            value = self.grade(before, after) if np.isfinite(after).all() else math.nan
            if value is None:
                self.silent += 1
            else:
                self.values.append(value)

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        found = {self.figure: float(np.mean(self.values))} if self.values else {}
        return found | ({self.counted: float(self.silent)} if self.silent else {})
