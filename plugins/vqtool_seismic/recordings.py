"""Continuous records in files that ObsPy reads (miniSEED, SAC, ...): an index of what is there, read on demand."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.errors import VqtoolError
from vqtool.progress import progress_of
from vqtool_seismic.blocks import Block, Span
from vqtool_seismic.obspy_files import UNKNOWN, obspy, waveforms
from vqtool_seismic.traces import COMPONENTS, Samples, bridged, component_of, length_at, resampled
from vqtool_seismic.tracks import HOLE, Track, floats, tracks_of

NO_WAVEFORMS = {".xml", ".qml", ".quakeml", ".csv", ".txt", ".json", ".md", ".png", ".pdf", ".html", ".toml"}
SLACK, DRIFT = 1.0, 1e-5  # s, and share of its length, by which the clock of a block may be off
MARGIN = 10.0  # s read beside a stretch, so that resampling has no edge within it


@dataclass(frozen=True, slots=True)
class Part:
    """One unbroken channel in one file."""

    file: Path
    code: str  # "NET.STA.LOC.CHA"
    component: str  # Z, N or E
    rate: float
    begin: float  # seconds since 1970
    end: float  # of the last sample
    blocks: tuple[Block, ...] = ()  # where it lies in a long file

    @property
    def instrument(self) -> str:
        """The code without the component: what three components have in common."""
        return self.code[:-1]

    def spans(self, begin: float, end: float) -> list[Span | None]:
        """The bytes of the file that hold what lies between two times; None: all of it."""
        spans: list[Span | None] = []
        for block in self.blocks:
            slack = SLACK + DRIFT * (block.end - block.begin)
            if block.begin - slack <= end and begin <= block.end + slack:
                if spans and (before := spans[-1]) and before[1] == block.span[0]:
                    spans[-1] = (before[0], block.span[1])
                else:
                    spans.append(block.span)
        return spans if self.blocks else [None]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time that the same components of an instrument cover without a gap."""

    instrument: str
    rate: float
    begin: float
    end: float  # of the last sample
    components: str = COMPONENTS  # those that are there

    @property
    def station(self) -> str:
        """ "NET.STA"."""
        return ".".join(filter(None, self.instrument.split(".")[:2])) or "unnamed"

    @property
    def samples(self) -> int:
        """How many at its own rate."""
        return round((self.end - self.begin) * self.rate) + 1


class Recordings:
    """An index of files, made from their headers; nothing is read but what is asked for.

    Files that may hold what is no number are looked through once: there more than `HOLE` such samples are a gap, fewer
    are bridged by a straight line, and `notes` tells how many of either there were.
    """

    def __init__(self, path: Path) -> None:
        self.skipped: Counter[str] = Counter()
        left, bridged = self._no_numbers = Counter[str](), Counter[str]()
        parts: list[Part] = []
        files = files_below(path)
        with progress_of(sum(file.stat().st_size for file in files), "index") as bar:
            for file in files:
                try:
                    parts += self._parts(file, bar.advance)
                except VqtoolError as error:  # in a folder the others are read
                    if file == path:
                        raise
                    foreign = UNKNOWN in error.message  # of which there may be many, so they are counted and not named
                    self.skipped[UNKNOWN if foreign else error.message] += 1
        if not parts:
            reasons = "; ".join(f"{n}: {reason}" for reason, n in self.skipped.items())
            raise VqtoolError(
                f"there are no seismograms in `{path}`" + (f" ({reasons})" if reasons else ""),
                hint="a file, a folder or an SDS tree of miniSEED, SAC or whatever else ObsPy reads",
            )
        self.parts: dict[str, list[Part]] = defaultdict(list)
        for part in parts:
            self.parts[part.instrument].append(part)
        self.stretches = [s for name in sorted(self.parts) for s in self._stretches(name)]
        self.notes = [
            f"{code}: {left[code] + bridged[code]} samples are no numbers: {left[code]} left out as gaps,"
            f" {bridged[code]} bridged by a line"
            for code in sorted({*left, *bridged})
        ]

    def read(self, stretch: Stretch, begin: float, samples: int, rate: float) -> Samples:
        """[3, samples] from `begin` (seconds since 1970) on at `rate` Hz, Z, N, E; absent components are zero."""
        library = obspy()
        wanted = round((begin - stretch.begin) * rate)
        step = Fraction(stretch.rate / rate).limit_denominator(1000).denominator  # the samples that both rates share
        ahead = max(0, wanted - round(MARGIN * rate)) // step * step if rate != stretch.rate else wanted
        first, skip = stretch.begin + ahead / rate, wanted - ahead
        last = min(stretch.end, begin + (samples - 1) / rate + MARGIN)
        count = math.floor((last - first) * stretch.rate + 0.5) + 1
        made = np.full((len(COMPONENTS), count), np.nan, dtype=np.float32)
        half = 0.5 / stretch.rate
        begun, ended = library.UTCDateTime(first - half), library.UTCDateTime(last + half)
        streams: dict[tuple[Path, Span | None], Any] = {}  # components may lie in the same block
        for part in self.parts[stretch.instrument]:
            if part.end < first or part.begin > last or part.component not in stretch.components:
                continue
            for span in part.spans(first - half, last + half):
                if (part.file, span) not in streams:
                    streams[part.file, span] = waveforms(part.file, span=span, starttime=begun, endtime=ended)
                for trace in streams[part.file, span]:
                    if trace.id == part.code:
                        _lay(made[COMPONENTS.index(part.component)], trace, first)
        return resampled(bridged(made), stretch.rate, rate)[:, skip : skip + samples]

    def _parts(self, file: Path, advance: Callable[[int], None]) -> Iterator[Part]:
        warned: list[str] = []
        for track in tracks_of(file, warned, advance):
            component = component_of(track.channel or "?")
            if component is None:
                self.skipped[f"the channel `{track.channel}` is none of Z, N, E, 1, 2, 3"] += 1
            elif track.samples < 2 or track.rate <= 0:
                self.skipped["no samples"] += 1
            else:
                for low, high in self._runs(track):
                    begin, end = track.time(low), track.time(high - 1)
                    within = tuple(b for b in track.blocks if b.begin <= end and begin <= b.end)
                    yield Part(file, track.code, component, track.rate, begin, end, within)
        self.skipped.update(warned)

    def _runs(self, track: Track) -> list[tuple[int, int]]:
        """The samples from .. to of a track that are numbers, but for holes of up to `HOLE` samples."""
        left, bridged_ = self._no_numbers
        runs = [(low, high) for low, high in track.runs if high - low > 1]
        if track.bridged:
            bridged_[track.code] += track.bridged
        if lost := track.samples - sum(high - low for low, high in runs):
            left[track.code] += lost
        if not runs:
            self.skipped["no samples that are numbers"] += 1
        return runs

    def _stretches(self, instrument: str) -> Iterator[Stretch]:
        """Cut at every gap of every component: within a stretch the same ones are there throughout."""
        parts = self.parts[instrument]
        rates = Counter(part.rate for part in parts)
        rate = rates.most_common(1)[0][0]
        if len(rates) > 1:
            self.skipped[f"another sampling rate than the {rate:g} Hz of its instrument"] += len(parts) - rates[rate]
            parts = self.parts[instrument] = [part for part in parts if part.rate == rate]
        zero = min(part.begin for part in parts)
        spans = [(p.component, round((p.begin - zero) * rate), round((p.end - zero) * rate) + 1) for p in parts]
        edges = snapped({edge for _, begin, end in spans for edge in (begin, end)})
        run: tuple[int, int, frozenset[str]] = (0, 0, frozenset())
        for begin, end in itertools.pairwise([*sorted(set(edges.values())), math.inf]):
            there = frozenset(c for c, b, e in spans if edges[b] <= begin < edges[e])
            if there == run[2]:
                run = (run[0], int(end) if there else 0, there)
                continue
            if run[2]:
                yield Stretch(instrument, rate, zero + run[0] / rate, zero + (run[1] - 1) / rate, "".join(run[2]))
            run = (int(begin), int(end) if there else 0, there)


def snapped(edges: Iterable[int], within: int = HOLE) -> dict[int, int]:
    """Each edge with the first of those that follow each other by at most `within` samples: clocks differ a little."""
    starts: dict[int, int] = {}
    first = before = -math.inf
    for edge in sorted(edges):
        first = first if edge - before <= within else edge
        starts[edge], before = int(first), edge
    return starts


def files_below(path: Path) -> list[Path]:
    """The file itself, or all that lie below a folder and may hold waveforms, in order."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise VqtoolError(f"there is no file or folder `{path}`")
    found = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return sorted(file for file in found if file.suffix.lower() not in NO_WAVEFORMS)


def pieces(stretch: Stretch, seconds: float) -> Iterator[Stretch]:
    """A stretch in parts of `seconds`, the last up to half as long again; nothing is left out and nothing twice."""
    step = max(1, round(seconds * stretch.rate))
    count = max(1, round(stretch.samples / step))
    for number in range(count):
        begin = stretch.begin + number * step / stretch.rate
        end = stretch.end if number + 1 == count else begin + (step - 1) / stretch.rate
        yield Stretch(stretch.instrument, stretch.rate, begin, end)


def samples_of(stretch: Stretch, rate: float) -> int:
    """How many samples a stretch has at `rate` Hz."""
    return length_at(stretch.samples, stretch.rate, rate)


def _lay(row: np.ndarray, trace: Any, first: float) -> None:
    """Put a trace's samples that are numbers where they belong in a row that begins at `first`."""
    data = floats(trace)
    at = round((trace.stats.starttime.timestamp - first) * trace.stats.sampling_rate)
    data = data[max(0, -at) :]
    at = max(0, at)
    data = data[: max(0, len(row) - at)]
    np.copyto(row[at : at + len(data)], data, where=np.isfinite(data))
