"""What every reader of seismograms gives: traces with their picks, read on demand, and a count of what was left out."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import missing_extra

Samples = NDArray[np.floating]
COMPONENTS = "ZNE"
ALIASES = {"Z": "Z", "3": "Z", "N": "N", "1": "N", "Y": "N", "E": "E", "2": "E", "X": "E"}  # last letter of a channel
FARTHEST = 100  # times as fast or as slow: records of no other rate are resampled
SAME = 1e-4  # rates that differ by no more than this share of them are one rate
HELD_MIB = 512  # the memory that recently read traces may take


@dataclass(frozen=True, slots=True)
class Trace:
    """One stretch of ground motion at one station. Sample numbers are at the rate the data set asks for."""

    key: str  # where the waveform is; traces with one key share their samples and never stand in two splits
    name: str
    station: str  # "NET.STA"
    samples: int
    rate: float  # Hz, as stored
    p: float = math.nan  # samples after the first; NaN: not picked
    s: float = math.nan
    noise: bool = False  # the catalogue says that it holds no event
    split: str = ""  # as the catalogue says
    start: float = math.nan  # seconds since 1970 of the first sample


class Source(Protocol):
    """A set of traces that can be larger than memory."""

    traces: tuple[Trace, ...]
    skipped: Counter[str]  # reason -> how many traces were left out
    notes: list[str]  # what was done to the data on the way; they are reported

    def whole(self, trace: Trace) -> Samples:
        """[3, trace.samples] in the file's own units, in the order Z, N, E; absent components are zero."""
        ...


class Held:
    """Reads traces of a source and keeps the latest in memory; what a copy in another process holds is its own."""

    def __init__(self, source: Source, mib: float = HELD_MIB) -> None:
        self.source, self.room = source, mib * 2**20
        self._kept: OrderedDict[str, Samples] = OrderedDict()
        self._bytes = 0

    def __getstate__(self) -> dict[str, object]:
        return {"source": self.source, "room": self.room, "_kept": OrderedDict(), "_bytes": 0}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)

    def __getitem__(self, trace: Trace) -> Samples:
        name = f"{trace.key} {trace.name}"
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        read = self.source.whole(trace)
        self._kept[name] = read
        self._bytes += read.nbytes
        while self._bytes > self.room and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return read


def component_of(channel: str) -> str | None:
    """Z, N or E of a channel's last letter (1 and Y are taken as N, 2 and X as E, 3 as Z); None for others."""
    return ALIASES.get(channel[-1:].upper())


def bridged(samples: Samples) -> Samples:
    """`samples` [C, n] with a straight line across what is not finite; a row without any number is zero."""
    known = np.isfinite(samples)
    if known.all():
        return samples
    at, made = np.arange(samples.shape[1]), np.zeros_like(samples)
    for row, there, out in zip(samples, known, made, strict=True):
        if there.any():
            out[:] = np.interp(at, at[there], row[there])
    return made


def seconds_of(text: str) -> float:
    """Seconds since 1970 of a time in UTC as ISO 8601 or with slashes, or of a number that says them.

    Raises ValueError for anything else.
    """
    try:
        number = float(text)
    except ValueError:
        time = datetime.fromisoformat(text.strip().replace("/", "-"))
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def resampled(samples: Samples, rate: float, wanted: float) -> Samples:
    """`samples` [C, n] at `rate` Hz at `wanted` Hz: [C, round(n wanted / rate)]; polyphase, with its low-pass filter.

    Raises VqtoolError where SciPy is not installed.
    """
    if same_rate(rate, wanted):
        return samples
    try:
        from scipy.signal import resample_poly
    except ImportError as fault:
        raise missing_extra("scipy", "seismic", "resampling") from fault
    ratio = Fraction(wanted / rate).limit_denominator(1000)
    level = samples[:, :1]  # the filter takes what lies outside for zero: a step at the first sample would ring
    made = resample_poly(samples - level, ratio.numerator, ratio.denominator, axis=1) + level
    return made.astype(samples.dtype)[:, : length_at(samples.shape[1], rate, wanted)]


def same_rate(rate: float, other: float) -> bool:
    """Whether two rates differ by parts per million: clocks and the headers of some formats do."""
    return abs(rate - other) <= SAME * other


def too_far(rate: float, wanted: float) -> str | None:
    """Why records at `rate` Hz are not resampled to `wanted` Hz; None where they are."""
    if rate <= wanted * FARTHEST and wanted <= rate * FARTHEST:
        return None
    return f"its sampling rate of {rate:g} Hz is more than {FARTHEST} times away from {wanted:g} Hz"


def length_at(samples: int, rate: float, wanted: float) -> int:
    """How many samples at `wanted` Hz lie within `samples` at `rate` Hz."""
    return samples if same_rate(rate, wanted) else max(1, math.floor((samples - 1) * wanted / rate + 1e-9) + 1)


def at_rate(trace: Trace, wanted: float) -> Trace:
    """A trace whose sample numbers count at `rate`, with those at `wanted` Hz."""
    if same_rate(trace.rate, wanted):
        return trace
    factor = wanted / trace.rate
    return replace(trace, samples=length_at(trace.samples, trace.rate, wanted), p=trace.p * factor, s=trace.s * factor)


def resampling_notes(stored: Iterable[Trace], wanted: float) -> list[str]:
    """A sentence for every rate that is not the one asked for: nothing is resampled in silence."""
    rates = Counter(trace.rate for trace in stored if not same_rate(trace.rate, wanted))
    return [f"{count} traces are resampled from {rate:g} to {wanted:g} Hz" for rate, count in sorted(rates.items())]
