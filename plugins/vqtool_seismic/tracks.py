"""The unbroken channels of a file, from its headers; of a long miniSEED file block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vqtool_seismic.blocks import Block, Span, blocks_of, is_long
from vqtool_seismic.obspy_files import format_of, waveforms

HOLE = 2  # samples that are not numbers, or between two parts of a stretch, that are bridged: clocks differ a little
WHOLE_NUMBERS = ("STEIM", "INT")  # encodings of miniSEED that cannot hold a NaN


class Track:
    """One unbroken channel; its samples that are numbers lie in `runs`, in which holes of up to `HOLE` are bridged."""

    def __init__(self, stats: Any) -> None:
        self.code = ".".join((stats.network, stats.station, stats.location, stats.channel))
        self.channel: str = stats.channel
        self.rate, self.delta = float(stats.sampling_rate), float(stats.delta)
        self.start = stats.starttime
        self.samples = self.bridged = 0
        self.runs: list[tuple[int, int]] = []  # samples from .. to
        self.blocks: list[Block] = []

    def add(self, trace: Any, span: Span | None) -> None:
        """What comes next, which lies in the bytes `span` of the file."""
        for low, high in _numbers(trace):
            low, high = low + self.samples, high + self.samples
            if self.runs and low - self.runs[-1][1] <= HOLE:
                self.bridged += low - self.runs[-1][1]
                low = self.runs.pop()[0]
            self.runs.append((low, high))
        self.samples += trace.stats.npts
        if span is not None:
            self.blocks.append(Block(span, trace.stats.starttime.timestamp, trace.stats.endtime.timestamp))

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
                track = Track(trace.stats)
                tracks.append(track)
            track.add(trace, span)
            latest[trace.id] = track
        advance(span[1] - span[0] if span else found.st_size)
    return tracks


def _headers(path: Path, span: Span | None, notes: list[str]) -> Any:
    """The traces of a block without their samples, unless these may hold a NaN."""
    stream = waveforms(path, notes, span=span, headonly=True)
    return waveforms(path, span=span) if any(_may_hold_nan(trace.stats) for trace in stream) else stream


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


def _may_hold_nan(stats: Any) -> bool:
    """Whether a trace may hold what is not a number, as its header says."""
    return not str(stats.get("mseed", {}).get("encoding", "")).startswith(WHOLE_NUMBERS)


def _numbers(trace: Any) -> list[list[int]]:
    """The samples from .. to of a trace that are numbers; all of them where only the header was read."""
    if not len(trace.data):
        return [[0, trace.stats.npts]]
    known = np.isfinite(floats(trace))
    return np.flatnonzero(np.diff(np.r_[False, known, False])).reshape(-1, 2).tolist()


def floats(trace: Any) -> np.ndarray:
    """The samples; NaN where they are masked."""
    return np.ma.filled(np.ma.asarray(trace.data, dtype=np.float32), np.nan)
