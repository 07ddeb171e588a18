"""Loudness of programme material by ITU-R BS.1770-4, which EBU R 128 prescribes; and the peak."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError, missing_extra

LOWEST = 4000  # Hz: the filters of the standard reach up to 1.7 kHz
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0  # LUFS; LU below the loudness of what passes the first gate


def k_weighting(rate: int) -> NDArray[np.float64]:
    """The two biquads of BS.1770 at any sample rate, as second-order sections [2, 6].

    The standard gives them at 48 kHz; these are the analogue filters behind it (a shelf of +4 dB at 1682 Hz, a
    high pass at 38 Hz) by the bilinear transform, and equal to the standard's to its printed digits at 48 kHz.
    """
    k, q = math.tan(math.pi * 1681.974450955533 / rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    norm = 1 + k / q + k * k
    shelf = [(high + band * k / q + k * k) / norm, 2 * (k * k - high) / norm, (high - band * k / q + k * k) / norm,
             1, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]  # fmt: skip
    k, q = math.tan(math.pi * 38.13547087602444 / rate), 0.5003270373238773
    norm = 1 + k / q + k * k
    high_pass = [1, -2, 1, 1, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]
    return np.array([shelf, high_pass])


class Loudness:
    """Takes a sound block by block; `integrated()` in LUFS, `peak` as a factor of full scale."""

    def __init__(self, rate: int, channels: int) -> None:
        if rate < LOWEST:
            raise VqtoolError(
                f"the loudness of a sound at {rate} Hz is not defined: EBU R 128 needs {LOWEST} Hz or more",
                hint='train with data.normalise = "peak" or "none", or resample the sound',
            )
        self.sections = k_weighting(rate)
        self.state = np.zeros((2, 2, channels))
        self.step = rate // 10  # blocks of 400 ms begin every 100 ms
        self.left = np.zeros((0, channels))
        self.powers: list[float] = []  # of each 100 ms, over all channels
        self.peak = 0.0

    def add(self, sound: NDArray[np.float32]) -> None:
        """[frames, channels]."""
        try:
            from scipy.signal import sosfilt
        except ImportError as fault:
            raise missing_extra("scipy", "audio", "EBU loudness") from fault
        if not len(sound):
            return
        self.peak = max(self.peak, float(np.abs(sound).max()))
        weighted, self.state = sosfilt(self.sections, sound.astype(np.float64), axis=0, zi=self.state)
        weighted = np.concatenate([self.left, weighted])
        whole = len(weighted) // self.step
        pieces = weighted[: whole * self.step].reshape(whole, self.step, sound.shape[1])
        self.powers += np.square(pieces).mean(1).sum(-1).tolist()
        self.left = weighted[whole * self.step :]

    def integrated(self) -> float:
        """LUFS over all blocks that pass the gates; -inf where none does. A sound under 400 ms is one block."""
        powers = np.array(self.powers)
        blocks = np.convolve(powers, np.full(4, 0.25), "valid") if len(powers) >= 4 else powers.mean(keepdims=True)
        if not len(powers):
            blocks = np.square(self.left).mean(0, keepdims=True).sum(-1) if len(self.left) else np.zeros(0)
        loud = blocks[lufs(blocks) > ABSOLUTE_GATE]
        if not len(loud):
            return -math.inf
        return float(lufs(loud[lufs(loud) > lufs(loud.mean()) + RELATIVE_GATE].mean()))


def lufs(power: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Mean square of the weighted signal as loudness."""
    return -0.691 + 10 * np.log10(np.maximum(power, 1e-30))
