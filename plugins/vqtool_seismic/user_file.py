"""Files of seismograms: overlapping windows of records of any length, and tables with a line for every token."""

from __future__ import annotations

import csv
import io
import itertools
import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from vqtool.api import CodedPiece, DataSpec, Files, Piece
from vqtool.errors import VqtoolError, counted
from vqtool.files import replacing, text_cell
from vqtool_seismic.channels import SLOWEST
from vqtool_seismic.messages import MOST, in_brief
from vqtool_seismic.recordings import Recordings, Stretch, files_below, rate_notes, samples_of
from vqtool_seismic.seisbench_folder import SeisBenchFolder
from vqtool_seismic.traces import Samples, Trace, too_far
from vqtool_seismic.windows import padded, standardised

WINDOWS = 64  # read and encoded at a time: a quarter of an hour of 28.8 s windows that overlap by half
DAY = 86400.0  # s
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
    offset: int = 0  # samples from 1970 to the first, so that cuts of one record have their windows at the same times


class SeismogramFiles(Files):
    """Everything that ObsPy reads, and SeisBench folders; codes as tables for reading, which cannot be decoded."""

    own_codes = True
    endings = (".csv", "")  # these cannot be decoded

    def __init__(
        self, spec: DataSpec, options: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None
    ) -> None:
        asked = asked or {}
        for name in asked.keys() - {"components"}:
            raise VqtoolError("only `components` is an option of the files to encode", where=f"data.{name}")
        super().__init__(spec, options)
        self.components: Mapping[str, str] | None = {**(options or {}), **asked}.get("components")

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
        spec, rate = self.spec, self.spec.sample_rate or 100.0
        frame = int(spec.metadata.get("frame", 1))
        notes: list[str] = []
        found = list(_records(path, rate, self.components, notes))
        records = [record for record in found if record.samples * 2 >= spec.length]
        notes += _too_short([record for record in found if record.samples * 2 < spec.length], rate, spec.length)
        if not records:
            raise VqtoolError(f"`{path}` holds nothing to encode", hint=in_brief(notes))
        total = sum(-(-windows_of(record, spec.length, frame) // WINDOWS) for record in records)
        for record in records:
            plan = windows(record.samples, spec.length, frame, record.offset)
            while some := list(itertools.islice(plan, WINDOWS)):
                yield Piece({"x": _standardised(record, some, spec)}, _metadata(record, some, rate), notes, total)
                notes = []

    @classmethod
    def inputs(cls, path: Path, *, decode: bool = False) -> list[Path]:
        """Those that may hold waveforms, or those of a SeisBench folder."""
        if _is_seisbench(path):
            return [*path.glob("metadata*"), *path.glob("waveforms*")]
        return files_below(path)

    def save_codes(self, path: Path, pieces: Iterator[CodedPiece], model: Mapping[str, Any]) -> list[Path]:
        """Write the tokens to a table with a line each (.csv), or as arrays (.npz).

        Columns: `station`, `record`, `time` (UTC, of the token's first sample; seconds from the record's begin where
        its date is not known, as in files that say 1970-01-01), `code0`, `code1`, ... Arrays: `codes` [n, Q], `time`
        [n] in seconds since 1970, `record` [n] (an index into `records` and `stations`), `seconds` (of a token),
        `codebook_sizes` and `model`.
        """
        if path.suffix.lower() not in SUFFIXES:
            raise VqtoolError(
                f"tokens are written to .csv or .npz, not to `{path.name}`", hint=f"--out {path.stem}.csv"
            )
        with replacing(path) as file:
            table: _Table | _Arrays = _Table(file) if path.suffix.lower() == ".csv" else _Arrays(file, model)
            for piece in pieces:
                table.add(*_kept(piece, self.spec), piece.metadata)
            table.close()
        return [path]

    def open_codes(self, path: Path, model: Mapping[str, Any]) -> tuple[str, Iterator[CodedPiece]]:
        """An error: the tokens written for reading hold neither the level nor the overlap that decoding needs."""
        raise VqtoolError(f"the tokens in `{path}` are for reading: seismograms cannot be made of them again")


def _too_short(records: Sequence[Record], rate: float, window: int) -> Iterator[str]:
    half = f"half a window ({window / rate / 2:.1f} s)"
    for record in records[:MOST]:
        yield f"skipped {record.name}: {record.samples / rate:.1f} s are less than {half}"
    if len(records) > MOST:
        yield f"skipped {counted(len(records) - MOST, 'more record')} of less than half a window"


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

    def add(self, codes: np.ndarray, times: np.ndarray, seconds: float, metadata: Mapping[str, Any]) -> None:
        """The tokens of a piece."""
        if not self.begun:
            self.writer.writerow(["station", "record", "time", *(f"code{q}" for q in range(codes.shape[1]))])
        self.begun = True
        names, dated = (text_cell(metadata["station"]), text_cell(metadata["record"])), is_dated(metadata["start"])
        for row, time in zip(codes.tolist(), times.tolist(), strict=True):
            self.writer.writerow([*names, _utc(time) if dated else f"{time:.2f}", *row])

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

    def add(self, codes: np.ndarray, times: np.ndarray, seconds: float, metadata: Mapping[str, Any]) -> None:
        """The tokens of a piece."""
        number = self.records.setdefault((metadata["record"], metadata["station"]), len(self.records))
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


def _records(path: Path, rate: float, components: Mapping[str, str] | None, notes: list[str]) -> Iterator[Record]:
    if _is_seisbench(path):
        folder = SeisBenchFolder(path, rate)
        notes += [*folder.notes, *(f"skipped {n} traces: {why}" for why, n in folder.skipped.items())]
        for trace in folder.traces:

            def cut(begin: int, count: int, trace: Trace = trace) -> Samples:
                return folder.whole(trace)[:, begin : begin + count]

            yield Record(trace.name, trace.station, trace.samples, trace.start, cut)
        return
    recordings = Recordings(path, components, min(SLOWEST, rate))
    notes += [*recordings.notes, *(f"skipped {n}: {why}" for why, n in recordings.skipped.items())]
    near = [stretch for stretch in recordings.stretches if too_far(stretch.rate, rate) is None]
    notes += rate_notes(recordings.stretches, rate)
    for stretch in near:

        def part(begin: int, count: int, stretch: Stretch = stretch) -> Samples:
            return recordings.read(stretch, stretch.begin + begin / rate, count, rate)

        name, offset = f"{stretch.name} {_utc(stretch.begin)}", round(stretch.begin * rate)
        yield Record(name, stretch.station, samples_of(stretch, rate), stretch.begin, part, offset)


def _standardised(record: Record, plan: list[tuple[int, int, int]], spec: DataSpec) -> torch.Tensor:
    """[B, 3, L]: the windows of a `plan`, in one reading."""
    length, level = spec.length, int(spec.metadata.get("level", spec.length))
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


def is_dated(start: float) -> bool:
    """Whether a record's begin is a date; formats without one have the first of January 1970."""
    return not (math.isnan(start) or 0 <= start < DAY)


def _utc(time: float) -> str:
    date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=round(time, 3))
    return date.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
