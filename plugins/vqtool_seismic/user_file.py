"""Files of seismograms: overlapping windows of records of any length, and tables with a line for every token."""

from __future__ import annotations

import csv
import io
import itertools
import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from vqtool.api import CodedPiece, DataSpec, Files, Piece
from vqtool.errors import VqtoolError
from vqtool.files import replacing, text_cell
from vqtool_seismic.recordings import Recordings, Stretch, files_below, samples_of
from vqtool_seismic.seisbench_folder import SeisBenchFolder
from vqtool_seismic.traces import Samples, Trace, too_far
from vqtool_seismic.windows import padded, standardised

WINDOWS = 64  # read and encoded at a time: a quarter of an hour of 28.8 s windows that overlap by half
SUFFIXES = (".csv", ".npz")
IN_MEMORY = 2**22  # bytes of a column that are kept in memory; the rest goes to a temporary file that has no name


@dataclass(frozen=True, slots=True)
class Record:
    """A record without a gap; `read(begin, count)` gives its samples [3, count] at the model's rate."""

    name: str  # of the instrument, or of the trace in a data set
    station: str
    samples: int
    start: float  # seconds since 1970; NaN: not known
    read: Callable[[int, int], Samples]
    notes: tuple[str, ...] = ()  # what is done to it
    offset: int = 0  # samples from 1970 to the first, so that cuts of one record have their windows at the same times


class SeismogramFiles(Files):
    """Everything that ObsPy reads, and SeisBench folders; codes as tables for reading, which cannot be decoded."""

    own_codes = True

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """Batches of overlapping windows of everything in `path`: files that ObsPy reads, or a SeisBench folder.

        Windows begin half a window apart, at whole frames, and of each only the middle is kept, so that no token sees
        an edge but at the ends of a record. Each is standardised like the training windows, by `level` samples about
        it, wherever what is read at a time may end. In continuous records frames and windows are counted from 1970, so
        that a token depends on where the record is cut only where the cut is within a window and a `level` of it. The
        metadata hold the record's name, station and start, the begins of the windows, and which samples to keep of
        each.
        """
        if condition:
            raise VqtoolError("seismograms are not generated from a condition", exit_code=1)
        spec = self.spec
        rate, frame = spec.sample_rate or 100.0, int(spec.about.get("frame", 1))
        notes: list[str] = []
        records = list(_records(path, rate, notes))
        total = sum(-(-windows_of(r, spec.length, frame) // WINDOWS) for r in records if r.samples * 2 >= spec.length)
        for record in records:
            notes += record.notes
            if record.samples * 2 < spec.length:
                notes.append(f"skipped {record.name}: {record.samples / rate:.1f} s are less than half a window")
                continue
            plan = windows(record.samples, spec.length, frame, record.offset)
            while some := list(itertools.islice(plan, WINDOWS)):
                yield Piece({"x": _standardised(record, some, spec)}, _metadata(record, some, rate), notes, total)
                notes = []
        if notes:
            raise VqtoolError(f"`{path}` holds nothing to encode", hint="; ".join(notes))

    @classmethod
    def inputs(cls, path: Path, *, decode: bool = False) -> list[Path]:
        """Those that may hold waveforms, or those of a SeisBench folder."""
        if _is_seisbench(path):
            return [*path.glob("metadata*"), *path.glob("waveforms*")]
        return files_below(path)

    def save_codes(self, path: Path, pieces: Iterator[CodedPiece], model: Mapping[str, Any]) -> list[Path]:
        """Write the tokens to a table with a line each (.csv), or as arrays (.npz).

        Columns: `station`, `record`, `time` (UTC, of the token's first sample; seconds from the record's begin where
        its date is not known), `code0`, `code1`, ... Arrays: `codes` [n, Q], `time` [n] in seconds since 1970, `record`
        [n] (an index into `records` and `stations`), `seconds` (of a token), `codebook_sizes` and `model`.
        """
        if path.suffix.lower() not in SUFFIXES:
            raise VqtoolError(
                f"tokens are written to .csv or .npz, not to `{path.name}`", hint=f"--out {path.stem}.csv"
            )
        with replacing(path) as file:
            table: _Table | _Arrays = _Table(file) if path.suffix.lower() == ".csv" else _Arrays(file, model)
            for piece in pieces:
                table.add(*_kept(piece, self.spec), piece.metadata["record"], piece.metadata["station"])
            table.close()
        return [path]

    def open_codes(self, path: Path, model: Mapping[str, Any]) -> tuple[str, Iterator[CodedPiece]]:
        """An error: the tokens written for reading hold neither the level nor the overlap that decoding needs."""
        raise VqtoolError(f"the tokens in `{path}` are for reading: seismograms cannot be made of them again")


def windows(samples: int, length: int, frame: int, offset: int = 0) -> Iterator[tuple[int, int, int]]:
    """(begin, first sample to keep, the one after the last) of the windows that cover a record of `samples`.

    All begin at whole frames, and those that are neither the first nor the last at whole multiples of the hop, both
    counted `offset` samples before the record: samples before its first whole frame are in no window.
    """
    head, between, last = _begins(samples, length, frame, offset)
    low = begin = head
    for following in itertools.chain(between, [last] if last > head else []):
        middle = head + ((begin + length + following) // 2 - head) // frame * frame
        yield begin, low, middle
        low, begin = middle, following
    yield begin, low, samples


def _begins(samples: int, length: int, frame: int, offset: int) -> tuple[int, range, int]:
    """Where the first window begins, those between, and the last (which may be the first)."""
    hop = max(1, length // 2 // frame) * frame
    head = -offset % frame
    last = head + max(0, samples - head - length) // frame * frame
    first = -offset % hop
    return head, range(first if first > head else first + hop, last, hop), last


def windows_of(record: Record, length: int, frame: int) -> int:
    """How many windows a record has."""
    head, between, last = _begins(record.samples, length, frame, record.offset)
    return 1 + len(between) + (last > head)


class _Table:
    """A line for each token."""

    def __init__(self, file: BinaryIO) -> None:
        self.text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self.writer = csv.writer(self.text, lineterminator="\n")
        self.begun = False

    def add(self, codes: np.ndarray, times: np.ndarray, seconds: float, record: str, station: str) -> None:
        """The tokens of a piece."""
        if not self.begun:
            self.writer.writerow(["station", "record", "time", *(f"code{q}" for q in range(codes.shape[1]))])
        self.begun = True
        names = text_cell(station), text_cell(record)
        for row, time in zip(codes.tolist(), times.tolist(), strict=True):
            self.writer.writerow([*names, _utc(time) if time > 86400 * 365 else f"{time:.2f}", *row])

    def close(self) -> None:
        """All tokens are there."""
        if not self.begun:
            raise VqtoolError("there is nothing to encode")
        self.text.flush()
        self.text.detach()


def _growing() -> tempfile.SpooledTemporaryFile[bytes]:
    return tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)


class _Arrays:
    """Arrays that grow in temporary files, and the `.npz` of them."""

    def __init__(self, file: BinaryIO, model: Mapping[str, Any]) -> None:
        self.file, self.model = file, model
        self.records: dict[tuple[str, str], int] = {}
        self.columns = {name: _growing() for name in ("codes", "time", "record")}
        self.rows, self.books, self.seconds = 0, 0, math.nan

    def add(self, codes: np.ndarray, times: np.ndarray, seconds: float, record: str, station: str) -> None:
        """The tokens of a piece."""
        number = self.records.setdefault((record, station), len(self.records))
        self.columns["codes"].write(codes.astype("<i4").tobytes())
        self.columns["time"].write(times.astype("<f8").tobytes())
        self.columns["record"].write(np.full(len(times), number, "<i4").tobytes())
        self.rows, self.books, self.seconds = self.rows + len(times), codes.shape[1], seconds

    def close(self) -> None:
        """All tokens are there."""
        if not self.records:
            raise VqtoolError("there is nothing to encode")
        names, stations = (np.array(list(part)) for part in zip(*self.records, strict=True))
        shapes = {
            "codes": ("<i4", (self.rows, self.books)),
            "time": ("<f8", (self.rows,)),
            "record": ("<i4", (self.rows,)),
        }
        rest = {"records": names, "stations": stations, "seconds": self.seconds,
                "codebook_sizes": self.model["codebook_sizes"], "model": self.model["model"]}  # fmt: skip
        with zipfile.ZipFile(self.file, "w") as archive:
            for name, (kind, shape) in shapes.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    header = {"descr": kind, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(entry, header)
                    self.columns[name].seek(0)
                    shutil.copyfileobj(self.columns[name], entry)
            for name, value in rest.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asanyarray(value), allow_pickle=False)


def _is_seisbench(path: Path) -> bool:
    return path.is_dir() and any(path.glob("metadata*.csv"))


def _records(path: Path, rate: float, notes: list[str]) -> Iterator[Record]:
    if _is_seisbench(path):
        folder = SeisBenchFolder(path, rate)
        notes += [*folder.notes, *(f"skipped {n} traces: {why}" for why, n in folder.skipped.items())]
        for trace in folder.traces:

            def cut(begin: int, count: int, trace: Trace = trace) -> Samples:
                return folder.whole(trace)[:, begin : begin + count]

            yield Record(trace.name, trace.station, trace.samples, trace.start, cut)
        return
    recordings = Recordings(path)
    notes += [*recordings.notes, *(f"skipped {n}: {why}" for why, n in recordings.skipped.items())]
    for stretch in recordings.stretches:
        if why := too_far(stretch.rate, rate):
            notes.append(f"skipped {stretch.instrument}: {why}")
            continue
        resampled = f"{stretch.instrument}: resampled from {stretch.rate:g} to {rate:g} Hz"

        def part(begin: int, count: int, stretch: Stretch = stretch) -> Samples:
            return recordings.read(stretch, stretch.begin + begin / rate, count, rate)

        name = f"{stretch.instrument} {_utc(stretch.begin)}"
        offset = round(stretch.begin * rate)
        notes_of = (resampled,) if stretch.rate != rate else ()
        yield Record(name, stretch.station, samples_of(stretch, rate), stretch.begin, part, notes_of, offset)


def _standardised(record: Record, plan: list[tuple[int, int, int]], spec: DataSpec) -> torch.Tensor:
    """[B, 3, L]: the windows of a `plan`, in one reading."""
    length, level = spec.length, int(spec.about.get("level", spec.length))
    first = max(0, min(plan[0][0] - level, record.samples - level))
    end = min(record.samples, plan[-1][0] + length + level)
    samples = padded(record.read(first, end - first), plan[-1][0] + length - first)
    return torch.from_numpy(np.stack([standardised(samples, begin - first, length, level)[0] for begin, _, _ in plan]))


def _metadata(record: Record, plan: list[tuple[int, int, int]], rate: float) -> dict[str, Any]:
    return {"record": record.name, "station": record.station, "start": record.start, "samples": record.samples,
            "rate": rate, "windows": plan}  # fmt: skip


def _kept(piece: CodedPiece, spec: DataSpec) -> tuple[np.ndarray, np.ndarray, float]:
    """The kept tokens [n, Q] of a piece, the times [n] they begin at, and how many seconds each lasts."""
    codes, metadata = piece.codes.numpy(), piece.metadata
    samples = spec.length / codes.shape[1]
    start = 0.0 if math.isnan(metadata["start"]) else metadata["start"]
    within = samples * np.arange(codes.shape[1])
    kept, times = [], []
    for window, (begin, low, high) in zip(codes, metadata["windows"], strict=True):
        at = begin + within
        inside = (at + samples / 2 >= low) & (at + samples / 2 < high) & (at + samples <= metadata["samples"])
        kept.append(window[inside])
        times.append(start + at[inside] / metadata["rate"])
    return np.concatenate(kept), np.concatenate(times), samples / metadata["rate"]


def _utc(time: float) -> str:
    return datetime.fromtimestamp(round(time, 3), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
