"""The classic detector: a band-pass, and the recursive ratio of short-term to long-term average energy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import missing_extra

Array = NDArray[np.float64]


def bandpassed(x: Array, rate: float, low: float, high: float) -> Array:
    """`x` [..., n] at `rate` Hz through a causal Butterworth band-pass of four poles; `high` stays below Nyquist's."""
    try:
        from scipy.signal import butter, sosfilt
    except ImportError as fault:
        raise missing_extra("scipy", "seismic", "STA/LTA") from fault
    sos = butter(4, (low, min(high, 0.45 * rate)), btype="bandpass", fs=rate, output="sos")
    return np.asarray(sosfilt(sos, x, axis=-1))


def sta_lta(x: Array, short: int, long: int) -> Array:
    """[..., n] recursive STA/LTA of `x` [..., n]; zero for the first `short` samples (Withers et al. 1998, eq. 3-5).

    sta_i = x_i^2 / short + (1 - 1 / short) sta_{i-1}, and so with `long`; both are taken over what there has been of
    the signal so far, so that an onset early in a window is seen as well.
    """
    from scipy.signal import lfilter

    energy = np.square(x)
    steps = np.arange(1, x.shape[-1] + 1)
    sta, lta = (lfilter([1 / n], [1, 1 / n - 1], energy, axis=-1) / (1 - (1 - 1 / n) ** steps) for n in (short, long))
    ratio = sta / np.maximum(lta, np.finfo(np.float64).tiny)
    ratio[..., :short] = 0
    return np.asarray(ratio)
