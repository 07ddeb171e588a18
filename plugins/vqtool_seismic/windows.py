"""Windows of one length cut out of traces, standardised and labelled, as the rows of a split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqtool.api import MASK, Batch, DataSpec, Field
from vqtool_seismic.phases import NONE, PHASES, bounds, frame_labels, window_label
from vqtool_seismic.traces import COMPONENTS, Held, Samples, Trace

ROUNDING = {4: 2.0**-23, 8: 2.0**-46}  # share of a constant by which its samples may differ, by bytes of a number


@dataclass(frozen=True, slots=True)
class Cut:
    """How windows are cut; the options that every reader of seismograms shares."""

    length: int  # samples
    rate: float  # Hz
    frame: int  # samples a label stands for
    level: int  # samples about a window that its mean and standard deviation are taken from; at least `length`
    three: bool  # label three-component traces only
    shortest: int | None = None  # samples of a trace that is a shorter window, masked; None: it goes on as its mirror

    @property
    def frames(self) -> int:
        """How many labels a window has."""
        return self.length // self.frame


def standardised(samples: Samples, begin: int, length: int, level: int) -> tuple[Samples, Samples]:
    """The window [3, length] of `samples` [3, n] from `begin` on, and the standard deviations [3], 0 where dead.

    Each component is less the mean and over the standard deviation of the `level` samples about the window (of what
    there is of them); a component that is constant in the window is zero.
    """
    first = max(0, min(begin - (level - length) // 2, samples.shape[1] - level))
    about = samples[:, first : first + max(level, length)].astype(np.float64)
    mean, spread = about.mean(1, keepdims=True), about.std(1)
    window = samples[:, begin : begin + length]
    rounding = ROUNDING[samples.dtype.itemsize] * np.abs(about).max(1)  # of a constant
    dead = (window.min(1) == window.max(1)) | (spread <= rounding)
    scale = np.where(dead, 0, spread)
    return ((window - mean) / np.where(dead, np.inf, spread)[:, None]).astype(np.float32), scale.astype(np.float32)


def padded(samples: Samples, length: int) -> Samples:
    """`samples` [3, n] with at least `length` samples: a shorter trace goes on as its own mirror image."""
    missing = length - samples.shape[1]
    return np.pad(samples, ((0, 0), (0, missing)), mode="reflect") if missing > 0 else samples


class Windows:
    """Fixed windows that cover every trace once, from a begin that its name and `seed` choose.

    Every pick of a set may stand at one and the same sample; the begin is random so that no window reveals it. Where a
    window at an end of a trace repeats samples of its neighbour, those frames are labelled in one of the two only.
    """

    def __init__(
        self, held: Held, traces: Sequence[Trace], stations: Sequence[str], cut: Cut, *, seed: int = 0
    ) -> None:
        self.held, self.traces, self.cut = held, tuple(traces), cut
        number = {station: index for index, station in enumerate(stations)}
        self.station = [number[trace.station] for trace in self.traces]
        self.with_noise = {t.key for t in traces if t.noise} & {t.key for t in traces if not t.noise}
        at = [(i, nominal) for i, t in enumerate(self.traces) for nominal in _nominal(t, cut.length, seed)]
        self.at = np.array(at, dtype=np.int64).reshape(-1, 2)
        self._bounds: dict[int, tuple[NDArray[np.float64], bool]] = {}

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, index: int) -> Batch:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> Batch:
        return self.read(indices, [int(self.at[i, 1]) for i in indices])

    def crops(self, indices: list[int], shares: Sequence[float]) -> Batch:
        """Other windows of the same traces: `shares` in [0, 1) choose among all begins that fit into the trace."""
        traces = [self.traces[int(self.at[index, 0])] for index in indices]
        begins = [int(s * (max(0, t.samples - self.cut.length) + 1)) for t, s in zip(traces, shares, strict=True)]
        return self.read(indices, begins)

    def read(self, indices: Sequence[int], nominal: Sequence[int]) -> Batch:
        """The windows of the traces at `indices` that begin at the samples `nominal`, moved into the trace."""
        rows = [self._row(int(self.at[i, 0]), begin) for i, begin in zip(indices, nominal, strict=True)]
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        batch = {name: torch.from_numpy(value) for name, value in columns.items()}
        return batch | {"window": torch.as_tensor(list(indices), dtype=torch.long)}

    def _row(self, number: int, nominal: int) -> dict[str, NDArray[Any] | np.generic]:
        trace, cut = self.traces[number], self.cut
        samples = self.held[trace]
        bound, complete = self._labels(number, samples)
        begin = min(max(nominal, 0), max(0, trace.samples - cut.length))
        length = cut.length if cut.shortest is None else min(cut.length, trace.samples)
        x, scale = standardised(padded(samples, length), begin, length, cut.level)
        x = np.pad(x, ((0, 0), (0, cut.length - length)))
        own = (max(nominal, 0), min(nominal + cut.length, trace.samples))  # frames outside are another window's
        phase = frame_labels(bound, begin, cut.frames, cut.frame)
        middle = begin + cut.frame * np.arange(cut.frames) + cut.frame / 2
        phase[(middle < own[0]) | (middle >= own[1])] = NONE
        event = window_label(trace, *own, cut.rate) if complete else NONE
        if event == 0 and not trace.noise and trace.key in self.with_noise:
            event = NONE  # the same samples stand in a row of their own
        if event == 0 and 2 * (own[1] - own[0]) < min(cut.length, trace.samples):
            event = NONE  # nearly all of it stands in its neighbour
        row: dict[str, NDArray[Any] | np.generic] = {
            "x": x,
            "phase": phase,
            "event": np.int64(event),
            "p": np.float32(trace.p - begin),
            "s": np.float32(trace.s - begin),
            "live": (scale > 0).astype(np.float32),
            "scale": scale,
            "station": np.int64(self.station[number]),
        }
        return row if cut.shortest is None else row | {MASK: np.arange(cut.length) < length}

    def _labels(self, number: int, samples: Samples) -> tuple[NDArray[np.float64], bool]:
        """The bounds of a trace's phases, and whether it may be labelled at all; computed once for each trace."""
        if number not in self._bounds:
            trace = self.traces[number]
            complete = not self.cut.three or bool((samples.min(1) < samples.max(1)).all())
            nothing = not complete or (trace.noise and trace.key in self.with_noise)
            bound = np.full(5, math.nan) if nothing else bounds(samples, trace, self.cut.rate)
            self._bounds[number] = (bound, complete)
        return self._bounds[number]


def _nominal(trace: Trace, length: int, seed: int) -> Iterable[int]:
    """Begins of windows end to end over the trace; the first may lie before it and the last reach beyond it."""
    if trace.samples <= length:
        return [0]
    digest = hashlib.blake2b(f"{seed} {trace.name} {trace.key}".encode(), digest_size=8).digest()
    first = int.from_bytes(digest, "big") % length
    return range(first - length if first else 0, trace.samples, length)


def described(cut: Cut, stations: Sequence[str], metadata: dict[str, object]) -> DataSpec:
    """What the batches hold."""
    fields = {
        "x": Field((len(COMPONENTS), cut.length), "signal", "standard deviations"),
        "phase": Field((cut.frames,), "label", names=PHASES),
        "event": Field((), "label", names=("noise", "event")),
        "p": Field((), "extra", "samples"),
        "s": Field((), "extra", "samples"),
        "live": Field((len(COMPONENTS),), "extra"),
        "scale": Field((len(COMPONENTS),), "extra", "units of the file"),
        "station": Field((), "group", names=tuple(stations)),
        "window": Field((), "extra"),
    }
    if cut.shortest is not None:
        fields[MASK] = Field((cut.length,), "mask")
    return DataSpec(fields, sample_rate=cut.rate, metadata=metadata)
