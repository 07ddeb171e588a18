"""Continuous records as traces to train on: some minutes each, and one about every picked event."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vqtool_seismic.channels import SLOWEST
from vqtool_seismic.picks import Pick, arrivals, events_in, of_station, read_picks
from vqtool_seismic.recordings import Recordings, Stretch, pieces, samples_of
from vqtool_seismic.traces import Samples, Trace, same_rate, too_far

PIECE = 300.0  # s of a trace without picks
BEFORE, AFTER = 30.0, 60.0  # s about a P pick


class ContinuousRecords:
    """Traces of whatever ObsPy reads, with picks where a file gives them; read from the files when needed."""

    def __init__(
        self, path: Path, rate: float, picks: Path | None, components: Mapping[str, str] | None = None
    ) -> None:
        self.rate = rate
        self.recordings = Recordings(path, components, min(SLOWEST, rate))
        self.skipped: Counter[str] = self.recordings.skipped
        self.notes = list(self.recordings.notes)
        self._stretches: dict[str, Stretch] = {}
        known_picks = read_picks(picks) if picks is not None else []
        stretches = [stretch for stretch in self.recordings.stretches if self._near(stretch)]
        self.traces = tuple(trace for stretch in stretches for trace in self._traces(stretch, known_picks))
        rates = Counter(stretch.rate for stretch in stretches if not same_rate(stretch.rate, rate))
        self.notes += [f"{n} records are resampled from {r:g} to {rate:g} Hz" for r, n in sorted(rates.items())]
        if known_picks:
            matched = sum(not math.isnan(trace.p) for trace in self.traces)
            self.notes.append(f"{matched} of {events_in(known_picks)} picked P arrivals lie in the records")

    def _near(self, stretch: Stretch) -> bool:
        """Whether its rate is one to resample from."""
        if why := too_far(stretch.rate, self.rate):
            self.skipped[why] += 1
        return not why

    def whole(self, trace: Trace) -> Samples:
        """[3, trace.samples] in the files' own units, less a whole number of them, at the rate asked for."""
        read = self.recordings.read(self._stretches[trace.key], trace.start, trace.samples, self.rate)
        return (read - read.mean(1, keepdims=True).round()).astype(np.float32)

    def _traces(self, stretch: Stretch, picks: list[Pick]) -> Iterator[Trace]:
        """The stretch cut at the windows about its events, and what is between them into pieces."""
        at = stretch.begin
        for p, s in arrivals(of_station(picks, stretch.station)):
            if not stretch.begin <= p <= stretch.end:
                continue
            begin, end = max(at, self._whole_sample(stretch, p - BEFORE)), min(stretch.end, p + AFTER)
            if p < at:  # it lies in what the event before it has taken
                self.skipped[f"a P pick within {AFTER:g} s of the one before it"] += 1
                continue
            yield from self._between(stretch, at, begin)
            yield self._trace(stretch, begin, end, p, s)
            at = self._whole_sample(stretch, end)
        yield from self._between(stretch, at, stretch.end)

    def _between(self, stretch: Stretch, begin: float, end: float) -> Iterator[Trace]:
        if end - begin > 1:
            for piece in pieces(Stretch(stretch.instrument, stretch.rate, begin, end), PIECE):
                yield self._trace(stretch, piece.begin, piece.end, math.nan, math.nan)

    def _trace(self, stretch: Stretch, begin: float, end: float, p: float, s: float) -> Trace:
        begin = self._whole_sample(stretch, begin)
        key = f"{stretch.instrument} {begin:.3f}"
        self._stretches[key] = stretch
        samples = samples_of(Stretch(stretch.instrument, stretch.rate, begin, end), self.rate)
        return Trace(
            key=key,
            name=key,
            station=stretch.station,
            samples=samples,
            rate=self.rate,
            p=(p - begin) * self.rate,
            s=(s - begin) * self.rate if s <= end else math.nan,
            start=begin,
        )

    def _whole_sample(self, stretch: Stretch, time: float) -> float:
        """The sample, at the rate asked for, that is nearest to a time."""
        return stretch.begin + max(0, round((time - stretch.begin) * self.rate)) / self.rate
