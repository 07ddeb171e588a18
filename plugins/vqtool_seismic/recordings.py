"""Continuous records in files that ObsPy reads (miniSEED, SAC, ...): an index of what is there, read on demand."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.errors import VqtoolError, counted
from vqtool.files import missing_file
from vqtool.progress import progress_of
from vqtool_seismic.blocks import Block, Span
from vqtool_seismic.channels import SLOWEST, Channels
from vqtool_seismic.messages import MOST, in_brackets, listed
from vqtool_seismic.obspy_files import UNKNOWN, WARNED, obspy, waveforms
from vqtool_seismic.traces import COMPONENTS, Samples, bridged, length_at, resampled, same_rate, too_far
from vqtool_seismic.tracks import HOLE, Track, is_number, tracks_of

NO_WAVEFORMS = {".xml", ".qml", ".quakeml", ".csv", ".txt", ".json", ".md", ".png", ".pdf", ".html", ".toml"}
SLACK, DRIFT = 1.0, 1e-5  # s, and share of its length, by which the clock of a block may be off
COMPARED = 2**18  # samples that are compared at a time with what overlaps them
MARGIN = 10.0  # s read beside a stretch, so that resampling has no edge within it


@dataclass(frozen=True, slots=True)
class Part:
    """One unbroken channel in one file."""

    file: Path
    code: str  # "NET.STA.LOC.CHA"
    instrument: str  # the code without the component: what three components have in common
    component: str  # Z, N or E
    rate: float
    begin: float  # seconds since 1970
    end: float  # of the last sample
    blocks: tuple[Block, ...] = ()  # where it lies in a long file

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
    def name(self) -> str:
        """The instrument's."""
        return self.instrument if self.instrument.strip(".") else self.station

    @property
    def samples(self) -> int:
        """How many at its own rate."""
        return round((self.end - self.begin) * self.rate) + 1


class Recordings:
    """An index of files, made from their headers; nothing is read but what is asked for.

    Files that may hold what is not a number are looked through once: there more than `HOLE` such samples are a gap,
    fewer are bridged by a straight line. `skipped` counts what is left out by its reason, and `notes` says what is
    assumed, joined or found dead. `declared` and `slowest` are those of `Channels`.
    """

    def __init__(self, path: Path, declared: Mapping[str, str] | None = None, slowest: float = SLOWEST) -> None:
        self.skipped: Counter[str] = Counter()
        self._gaps, self._bridged = Counter[str](), Counter[str]()
        self._channels = Channels(declared, slowest)
        self._constant, self._alive = set[str](), set[str]()
        self._warned: list[str] = []
        parts = self._index(path)
        dropped = self._channels.numbers_dropped()
        self._channels.check(path)
        parts = [part for part in parts if part.code not in dropped]
        self.skipped.update(self._channels.skipped())
        if not parts:
            raise VqtoolError(
                f"there are no seismograms in `{path}`" + in_brackets(self.skipped),
                hint=f"miniSEED, SAC or whatever else ObsPy reads, of ground motion at {SLOWEST:g} Hz or more",
            )
        if not self._alive:
            raise VqtoolError(
                f"every channel in `{path}` is constant",
                hint="the sensor or the digitiser was dead: there is no ground motion to read",
            )
        self.parts: dict[str, list[Part]] = defaultdict(list)
        for part in parts:
            self.parts[part.instrument].append(part)
        self._close_rates: dict[float, set[str]] = defaultdict(set)
        self.stretches = [s for name in sorted(self.parts) for s in self._stretches(name)]
        self.notes = [
            *self._warnings(),
            *self._not_numbers(),
            *self._dead(),
            *self._channels.notes(),
            *self._rates(),
            *self._overlaps(),
        ]

    def read(self, stretch: Stretch, begin: float, samples: int, rate: float) -> Samples:
        """[3, samples] from `begin` (seconds since 1970) on at `rate` Hz, Z, N, E; absent components are zero.

        In float64, since the offset of a sensor may be a million times its signal.
        """
        wanted = round((begin - stretch.begin) * rate)
        step = Fraction(stretch.rate / rate).limit_denominator(1000).denominator  # the samples that both rates share
        ahead = wanted if same_rate(stretch.rate, rate) else max(0, wanted - round(MARGIN * rate)) // step * step
        first, skip = stretch.begin + ahead / rate, wanted - ahead
        last = min(stretch.end, begin + (samples - 1) / rate + MARGIN)
        parts = [part for part in self.parts[stretch.instrument] if part.component in stretch.components]
        made, _ = laid(parts, first, last, stretch.rate)
        return resampled(bridged(made), stretch.rate, rate)[:, skip : skip + samples]

    def _index(self, path: Path) -> list[Part]:
        parts: list[Part] = []
        unread: dict[str, int] = Counter()
        files = files_below(path)
        with progress_of(sum(file.stat().st_size for file in files), "index") as bar:
            for file in files:
                warned: list[str] = []
                try:
                    parts += self._parts(file, warned, bar.advance)
                except VqtoolError as error:  # in a folder the others are read
                    if file == path:
                        raise
                    foreign = UNKNOWN in error.message  # of which there may be many, so they are counted and not named
                    unread[UNKNOWN if foreign else error.message] += 1
                for text in warned:
                    if WARNED in text:
                        self._warned.append(text)
                    else:
                        unread[text] += 1
        self.skipped.update(dict(list(unread.items())[:MOST]))
        if len(unread) > MOST:
            self.skipped["damaged files that are not named"] = sum(list(unread.values())[MOST:])
        return parts

    def _parts(self, file: Path, warned: list[str], advance: Callable[[int], None]) -> Iterator[Part]:
        for track in tracks_of(file, warned, advance):
            place = self._channels.place(track, file)
            if place is None:
                continue
            if track.samples < 2:
                self.skipped["no samples"] += 1
                continue
            (self._constant if track.constant else self._alive).add(track.code)
            for low, high in self._runs(track):
                begin, end = track.time(low), track.time(high - 1)
                within = tuple(b for b in track.blocks if b.begin <= end and begin <= b.end)
                yield Part(file, track.code, *place, track.rate, begin, end, within)

    def _runs(self, track: Track) -> list[tuple[int, int]]:
        """The samples from .. to of a track that are numbers, but for holes of up to `HOLE` samples."""
        runs = [(low, high) for low, high in track.runs if high - low > 1]
        if track.bridged:
            self._bridged[track.code] += track.bridged
        if lost := track.samples - sum(high - low for low, high in runs):
            self._gaps[track.code] += lost
        if not runs:
            self.skipped["no samples that are numbers"] += 1
        return runs

    def _stretches(self, instrument: str) -> Iterator[Stretch]:
        """Cut at every gap of every component: within a stretch the same ones are there throughout."""
        parts = self.parts[instrument]
        rates = Counter(part.rate for part in parts)
        rate = nominal(rates.most_common(1)[0][0])
        other = [part for part in parts if not same_rate(part.rate, rate)]
        if other:
            self.skipped[f"another sampling rate than the {rate:g} Hz of its instrument"] += len(other)
            parts = self.parts[instrument] = [part for part in parts if same_rate(part.rate, rate)]
        for part in parts:
            if part.rate != rate:
                self._close_rates[rate].add(part.code)
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
                yield Stretch(
                    instrument,
                    rate,
                    zero + run[0] / rate,
                    zero + (run[1] - 1) / rate,
                    "".join(c for c in COMPONENTS if c in run[2]),
                )
            run = (int(begin), int(end) if there else 0, there)

    def _warnings(self) -> Iterator[str]:
        if self._warned:
            more = f" (and {counted(len(self._warned) - 1, 'other file')} with warnings)" if self._warned[1:] else ""
            yield self._warned[0] + more

    def _not_numbers(self) -> Iterator[str]:
        codes = sorted({*self._gaps, *self._bridged})
        for code in codes[:MOST]:
            left, filled = self._gaps[code], self._bridged[code]
            yield (f"{code}: {left + filled} samples are not numbers: {left} left out as gaps,"
                   f" {filled} bridged by a line")  # fmt: skip
        if len(codes) > MOST:
            many = sum(self._gaps[code] + self._bridged[code] for code in codes[MOST:])
            yield f"{counted(len(codes) - MOST, 'more channel')}: {many} samples are not numbers"

    def _dead(self) -> Iterator[str]:
        if dead := sorted(self._constant - self._alive):
            yield f"{counted(len(dead), 'dead channel')} (constant throughout): {listed(dead)}"

    def _rates(self) -> Iterator[str]:
        for rate, codes in sorted(self._close_rates.items()):
            yield f"read {counted(len(codes), 'channel')} at nearly {rate:g} Hz as {rate:g} Hz: {listed(sorted(codes))}"

    def _overlaps(self) -> Iterator[str]:
        """What stands twice is compared, some of it at a time; `read` gives the first, in the order of files."""
        differing = Counter[str]()
        for parts in self.parts.values():
            rate = nominal(parts[0].rate)
            for component in COMPONENTS:
                differing += differences([part for part in parts if part.component == component], rate)
        if codes := sorted(differing):
            many = counted(differing.total(), "sample")
            yield f"overlapping records differ in {many}; the first in file order is used: {listed(codes)}"


def nominal(rate: float) -> float:
    """The whole number of Hz that a rate is but for parts per million, if there is one."""
    return float(round(rate)) if rate >= 1 and same_rate(rate, round(rate)) else rate


def rate_notes(stretches: Iterable[Stretch], rate: float) -> list[str]:
    """What is resampled to `rate` Hz, and what is skipped since its rate is too far from it: a line for each rate."""
    of: dict[float, list[str]] = defaultdict(list)
    for stretch in stretches:
        if not same_rate(stretch.rate, rate):
            of[stretch.rate].append(stretch.name)
    notes = []
    for own, names in sorted(of.items()):
        records, why = counted(len(names), "record"), too_far(own, rate)
        done = f"skipped {records}: {why}" if why else f"resampled {records} from {own:g} to {rate:g} Hz"
        notes.append(f"{done} ({listed(names)})")
    return notes


def twice(parts: Iterable[Part], least: float) -> Iterator[tuple[float, float]]:
    """The times, each longer than `least` seconds, that more than one of the parts cover."""
    reached = begun = ended = -math.inf
    for part in sorted(parts, key=lambda part: part.begin):
        end = min(reached, part.end)
        if end - part.begin > least:
            if part.begin > ended:
                if ended > begun:
                    yield begun, ended
                begun = part.begin
            ended = max(ended, end)
        reached = max(reached, part.end)
    if ended > begun:
        yield begun, ended


def differences(parts: Sequence[Part], rate: float) -> Counter[str]:
    """How many samples of each channel differ from those that stand at the same time before them."""
    differing, step = Counter[str](), COMPARED / rate
    times = {k for begin, end in twice(parts, HOLE / rate) for k in range(int(begin // step), int(end // step) + 1)}
    for low in (k * step for k in sorted(times)):
        there = [part for part in parts if part.begin < low + step and part.end >= low]
        differing += laid(there, low, low + step - 1 / rate, rate)[1]
    return differing


def laid(parts: Iterable[Part], first: float, last: float, rate: float) -> tuple[Samples, Counter[str]]:
    """[3, n] samples between two times, NaN where there are none, and how many stand there twice and differ.

    Of those the first is taken, in the order of files.
    """
    count, half = math.floor((last - first) * rate + 0.5) + 1, 0.5 / rate
    made, differing = np.full((len(COMPONENTS), count), np.nan), Counter[str]()
    begun, ended = (obspy().UTCDateTime(time) for time in (first - half, last + half))
    of: dict[Path, list[Part]] = defaultdict(list)
    for part in parts:
        if part.end >= first and part.begin <= last:
            of[part.file].append(part)
    for file, own in of.items():
        rows = {part.code: made[COMPONENTS.index(part.component)] for part in own}
        for span in joined(span for part in own for span in part.spans(first - half, last + half)):
            for trace in waveforms(file, span=span, starttime=begun, endtime=ended):
                if trace.id in rows:
                    differing[trace.id] += _lay(rows[trace.id], trace, first, rate)
    return made, +differing


def joined(spans: Iterable[Span | None]) -> list[Span | None]:
    """Bytes of a file in order, each once; None: all of it."""
    each = list(spans)
    if None in each:
        return [None]
    made: list[Span | None] = []
    for begin, end in sorted(span for span in each if span is not None):
        if made and (before := made[-1]) and begin <= before[1]:
            made[-1] = (before[0], max(before[1], end))
        else:
            made.append((begin, end))
    return made


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
        raise missing_file(path, what="file or folder")
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


def _lay(row: np.ndarray, trace: Any, first: float, rate: float) -> int:
    """Put a trace's numbers where they belong in a row that begins at `first`, unless there are others already.

    Returns how many of those differ.
    """
    at = round((trace.stats.starttime.timestamp - first) * rate)
    cut = slice(max(0, -at), max(0, len(row) - at))
    with np.errstate(invalid="ignore"):  # a NaN may warn
        data = np.ma.getdata(trace.data)[cut].astype(np.float64)
    known, there = is_number(trace.data)[cut], row[max(0, at) :][: len(data)]
    free = np.isnan(there)
    differ = int(np.count_nonzero(known & ~free & (there != data)))
    np.copyto(there, data, where=known & free)
    return differ
