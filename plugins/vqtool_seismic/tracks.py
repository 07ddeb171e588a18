"""The unbroken channels of a file, from its headers; of a long miniSEED file block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vqtool_seismic.blocks import Block, Span, blocks_of, is_long
from vqtool_seismic.obspy_files import format_of, waveforms

HOLE = 2  # samples that are not numbers, or between two parts of a stretch, that are bridged: clocks differ a little
WHOLE_NUMBERS = ("STEIM", "INT")  # encodings of miniSEED that cannot hold a NaN
LARGEST = float(np.finfo(np.float32).max)
DENSEST = {"STEIM1": 0.65, "STEIM2": 1.1}  # samples a byte of a constant at least, in records of 256 bytes or more


class Track:
    """One unbroken channel; its samples that are numbers lie in `runs`, in which holes of up to `HOLE` are bridged."""

    def __init__(self, trace: Any) -> None:
        stats = trace.stats
        self.sensor = ".".join(part.strip() for part in (stats.network, stats.station, stats.location))
        self.code: str = trace.id
        self.channel: str = stats.channel
        self.form: str = stats.get("_format", "")
        self.text = is_text(trace)
        self.pointing = _pointing(stats)
        self.rate, self.delta = float(stats.sampling_rate), float(stats.delta)
        self.start = stats.starttime
        self.samples = self.bridged = 0
        self.runs: list[tuple[int, int]] = []  # samples from .. to
        self.blocks: list[Block] = []
        self._lowest, self._highest = math.inf, -math.inf

    @property
    def constant(self) -> bool:
        """Whether all samples are known to be one number."""
        return self._lowest == self._highest

    def add(self, trace: Any, span: Span | None) -> None:
        """What comes next, which lies in the bytes `span` of the file."""
        runs = [[0, trace.stats.npts]] if self.text else self._numbers(trace)
        for low, high in runs:
            low, high = low + self.samples, high + self.samples
            if self.runs and low - self.runs[-1][1] <= HOLE:
                self.bridged += low - self.runs[-1][1]
                low = self.runs.pop()[0]
            self.runs.append((low, high))
        self.samples += trace.stats.npts
        if span is not None:
            self.blocks.append(Block(span, trace.stats.starttime.timestamp, trace.stats.endtime.timestamp))

    def _numbers(self, trace: Any) -> list[list[int]]:
        """The samples from .. to of a trace that are numbers; all of them where only the header was read."""
        if not len(trace.data):
            self._lowest, self._highest = -math.inf, math.inf
            return [[0, trace.stats.npts]]
        known = is_number(trace.data)
        data = np.ma.getdata(trace.data)
        data = data if known.all() else data[known]
        if len(data):
            self._lowest, self._highest = min(self._lowest, data.min()), max(self._highest, data.max())
        return np.flatnonzero(np.diff(np.r_[False, known, False])).reshape(-1, 2).tolist()

    def time(self, sample: int) -> float:
        """When a sample is, in seconds since 1970."""
        if sample == self.samples - 1:
            return float((self.start + sample * self.delta).timestamp)
        return float(self.start.timestamp + sample / self.rate if sample else self.start.timestamp)

    def goes_on(self, stats: Any) -> bool:
        """Whether a trace begins where this one ends, within half a sample."""
        following = self.start + self.samples * self.delta
        return self.rate == stats.sampling_rate and abs(stats.starttime - following) <= self.delta / 2


def tracks_of(path: Path, notes: list[str], advance: Callable[[int], None]) -> list[Track]:
    """All channels of a file, in its order; what ObsPy warns of goes to `notes`, and `advance` hears of bytes.

    Two traces of neighbouring blocks are one if ObsPy makes one of the records about the cut.
    """
    tracks: list[Track] = []
    latest: dict[str, Track] = {}
    found = path.stat()
    long = is_long(path) and format_of(str(path), found.st_mtime_ns, "waveform") == "MSEED"
    for span, seam in blocks_of(path) if long else [(None, None)]:
        before, seams = dict(latest), list(_seams(path, seam))
        for trace in _headers(path, span, notes):
            track = before.pop(trace.id, None)
            if track is None or not (track.goes_on(trace.stats) or _joined(track, trace, seams)):
                track = Track(trace)
                tracks.append(track)
            track.add(trace, span)
            latest[trace.id] = track
        advance(span[1] - span[0] if span else found.st_size)
    return tracks


def _headers(path: Path, span: Span | None, notes: list[str]) -> Any:
    """The traces of a block without their samples, unless these may hold a NaN or nothing but one number."""
    stream = waveforms(path, notes, span=span, headonly=True)
    return waveforms(path, span=span) if any(_to_be_read(trace.stats) for trace in stream) else stream


def _seams(path: Path, seam: Span | None) -> Iterator[Any]:
    if seam is not None:
        yield from waveforms(path, span=seam, headonly=True)


def _joined(track: Track, trace: Any, seams: list[Any]) -> bool:
    """Whether a trace goes on across the cut, by what ObsPy makes of the records about it: clocks drift."""
    begin, half = trace.stats.starttime, track.delta / 2
    return track.rate == trace.stats.sampling_rate and any(
        seam.id == track.code and seam.stats.starttime < begin - half and seam.stats.endtime >= begin - half
        for seam in seams
    )


def _to_be_read(stats: Any) -> bool:
    """Whether a trace may hold what is not a number, as its header says, or is as dense as a constant."""
    of = stats.get("mseed", {})
    encoding = str(of.get("encoding", ""))
    if encoding in DENSEST:  # the last record may be nearly empty
        full = (of.get("number_of_records", 1) - 1) * of.get("record_length", 512)
        return bool(stats.npts > DENSEST[encoding] * full)
    return encoding != "ASCII" and not encoding.startswith(WHOLE_NUMBERS)


def _pointing(stats: Any) -> str | None:
    """Z, N or E where the header of a SAC file gives that direction."""
    inclination, azimuth = (stats.get("sac", {}).get(name) for name in ("cmpinc", "cmpaz"))
    if inclination == 0:
        return "Z"
    return {0: "N", 90: "E"}.get(azimuth) if inclination == 90 else None


def is_text(trace: Any) -> bool:
    """Whether the samples are letters, as in a log."""
    return trace.stats.get("mseed", {}).get("encoding") == "ASCII" or trace.data.dtype.kind not in "biuf"


def is_number(data: Any) -> np.ndarray:
    """Which samples are numbers that fit a float32, and not masked."""
    values = np.ma.getdata(data)
    known = np.ones(len(values), dtype=bool) if values.dtype.kind in "biu" else np.abs(values) <= LARGEST
    return known & ~np.ma.getmaskarray(data) if np.ma.isMaskedArray(data) else known
