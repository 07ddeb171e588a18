"""Periodic records of any length to one period of a fixed length and back, by their harmonics (numpy only).

A steady record of k whole periods has energy in the bins 0, k, 2k, ... of its transform and nowhere else. Picking those
bins is at once the mean over the periods and an exact band-limited resampling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float64]


def fold(x: Wave, periods: int, length: int) -> Wave:
    """[..., n] samples of `periods` whole periods -> [..., length] samples of their mean period."""
    return _move(x, length, take=periods, place=1)


def unfold(x: Wave, periods: int, length: int) -> Wave:
    """[..., L] samples of one period -> [..., length] samples of `periods` periods; undoes `fold` within its band."""
    return _move(x, length, take=1, place=periods)


def limit(x: Wave, harmonics: int) -> Wave:
    """`x` [..., n], one period, without what lies above `harmonics` (the mean stays)."""
    spectrum = np.fft.rfft(x)
    spectrum[..., harmonics + 1 :] = 0
    return np.fft.irfft(spectrum, n=x.shape[-1])


def highest_harmonic(x: Wave, share: float = 1e-4) -> int:
    """The highest harmonic of `x` [n, L] that any row has at more than `share` of its largest one."""
    size = np.abs(np.fft.rfft(x - x.mean(-1, keepdims=True)))
    present = (size > share * size.max(-1, keepdims=True)).any(0)
    return int(np.flatnonzero(present)[-1])


def unlike(x: Wave, periods: int) -> Wave:
    """How much the periods of a record [..., n] differ: rms of what they do not share / rms, without the mean."""
    power = np.abs(np.fft.rfft(x)) ** 2
    power[..., 0] = 0
    total = power.sum(-1)
    power[..., ::periods] = 0  # what is left is exactly zero where nothing differs
    return np.sqrt(power.sum(-1) / total)


def hidden_periods(x: Wave) -> int:
    """The number of periods that a row [n] really holds: the greatest common divisor of its harmonics."""
    size = np.abs(np.fft.rfft(x))
    present = np.flatnonzero(size[1:] > 0.02 * size[1:].max()) + 1
    return int(np.gcd.reduce(present))


def _move(x: Wave, length: int, *, take: int, place: int) -> Wave:
    """Harmonics h of `x` from the bins take*h of its transform to the bins place*h of one of `length` samples.

    A Nyquist bin holds both signs of its frequency in one number: it is halved where it becomes an ordinary bin, and
    an ordinary bin that becomes Nyquist is doubled (its imaginary part has no samples there).
    """
    n = x.shape[-1]
    order = np.arange(min(n // 2 // take, length // 2 // place) + 1)
    picked = np.fft.rfft(x)[..., take * order]
    picked[..., 2 * take * order == n] *= 0.5
    nyquist = 2 * place * order == length
    picked[..., nyquist] = 2 * picked[..., nyquist].real
    spectrum = np.zeros((*x.shape[:-1], length // 2 + 1), dtype=complex)
    spectrum[..., place * order] = picked
    return np.fft.irfft(spectrum, n=length) * (length / n)
