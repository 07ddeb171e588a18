"""Which frame of a seismogram is noise, P, S or coda, by its picks and its own decay."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vqtool_seismic.traces import Samples, Trace

PHASES = ("noise", "P", "S", "coda")
NONE = -1
QUIET = 1.0  # s before P: what begins here may be a P that was picked late
S_LEAST = 2.0  # s that S lasts at least; else as long as P did
OVER_NOISE = 2.0  # the coda ends where the rms of one second falls below this many times the noise's


def bounds(samples: Samples, trace: Trace, rate: float) -> NDArray[np.float64]:
    """[5] sample numbers of the trace: end of the noise, begin of P, of S and of the coda, its end; NaN: not known.

    noise < P - 1 s; P = [P, S); S = [S, S + max(2 s, S - P)); coda = from there until the rms over one second, of all
    components each divided by its standard deviation, is below twice that of the noise. Frames are labelled only where
    both P and S are picked, and in traces that the catalogue calls noise.
    """
    none = np.full(5, math.nan)
    if trace.noise:
        none[0] = math.inf
        return none
    if math.isnan(trace.p) or math.isnan(trace.s) or not 0 < trace.p < trace.s:
        return none
    coda = trace.s + max(S_LEAST * rate, trace.s - trace.p)
    return np.array([trace.p - QUIET * rate, trace.p, trace.s, coda, _coda_end(samples, trace, coda, rate)])


def _coda_end(samples: Samples, trace: Trace, begin: float, rate: float) -> float:
    spread = samples.std(1, dtype=np.float64)
    live = samples[spread > 0].astype(np.float64) / spread[spread > 0, None]
    energy = np.square(live - live.mean(1, keepdims=True)).mean(0)
    before = energy[: max(1, int(trace.p - QUIET * rate))].mean()
    second = np.convolve(energy, np.full(round(rate), 1 / round(rate)), "same")
    quiet = np.flatnonzero(second[int(begin) :] < OVER_NOISE**2 * before)
    return float(int(begin) + quiet[0]) if len(quiet) else float(len(energy))


def frame_labels(bound: NDArray[np.float64], begin: int, frames: int, hop: int) -> NDArray[np.int64]:
    """[frames] indices into PHASES (NONE: not labelled) of the frames of `hop` samples from sample `begin` on.

    A frame has the label of its middle.
    """
    middle = begin + hop * np.arange(frames) + hop / 2
    labels = np.full(frames, NONE, dtype=np.int64)
    labels[middle < bound[0]] = 0
    for phase in (1, 2, 3):
        labels[(middle >= bound[phase]) & (middle < bound[phase + 1])] = phase
    return labels


def window_label(trace: Trace, begin: float, end: float, rate: float) -> int:
    """1 where the samples hold a P onset and a second after it, 0 where they end before one or in noise, else NONE."""
    if trace.noise:
        return 0
    if math.isnan(trace.p):
        return NONE
    if begin <= trace.p <= end - rate:
        return 1
    return 0 if end <= trace.p - QUIET * rate else NONE
