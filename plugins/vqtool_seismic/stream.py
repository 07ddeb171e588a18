"""Tokens of records of any length: windows that overlap, read some minutes at a time, and a line for every token."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqtool.api import Batch, Coded, DataSpec
from vqtool.errors import VqtoolError
from vqtool.files import save_npz, text_cell, write_atomic
from vqtool_seismic.recordings import Recordings, samples_of
from vqtool_seismic.seisbench_folder import SeisBenchFolder
from vqtool_seismic.traces import Samples
from vqtool_seismic.windows import padded, standardised

WINDOWS = 64  # read and encoded at a time: a quarter of an hour of 28.8 s windows that overlap by half
SUFFIXES = (".csv", ".npz")


@dataclass(frozen=True, slots=True)
class Record:
    """A record without a gap; `read(begin, count)` gives its samples [3, count] at the model's rate."""

    name: str  # of the instrument, or of the trace in a data set
    station: str
    samples: int
    start: float  # seconds since 1970; NaN: not known
    read: Callable[[int, int], Samples]
    offset: int = 0  # samples from 1970 to the first, so that cuts of one record have their windows at the same times


def read(spec: DataSpec, path: Path) -> Iterator[tuple[Batch, dict[str, Any]]]:
    """Batches of overlapping windows of everything in `path`: files that ObsPy reads, or a SeisBench folder.

    Windows begin half a window apart, at whole frames, and of each only the middle is kept, so that no token sees an
    edge but at the ends of a record. Each is standardised like the training windows, by `level` samples about it,
    wherever what is read at a time may end. In continuous records frames and windows are counted from 1970, so that
    a token depends on where the record is cut only where the cut is within a window and a `level` of it. `about` holds
    the record's name, station and start, the begins of the windows, and which samples of each to keep.
    """
    rate = spec.sample_rate or 100.0
    notes: list[str] = []
    for record in _records(path, rate, notes):
        if record.samples * 2 < spec.length:
            notes.append(f"skipped {record.name}: {record.samples / rate:.1f} s are less than half a window")
            continue
        plan = windows(record.samples, spec.length, int(spec.about.get("frame", 1)), record.offset)
        for at in range(0, len(plan), WINDOWS):
            x = _standardised(record, plan[at : at + WINDOWS], spec)
            yield {"x": x}, _about(record, plan[at : at + WINDOWS], rate) | {"notes": notes}
            notes = []
    if notes:
        raise VqtoolError(f"`{path}` holds nothing to encode", hint="; ".join(notes))


def windows(samples: int, length: int, frame: int, offset: int = 0) -> list[tuple[int, int, int]]:
    """(begin, first sample to keep, the one after the last) of the windows that cover a record of `samples`.

    All begin at whole frames, and those that are neither the first nor the last at whole multiples of the hop, both
    counted `offset` samples before the record: samples before its first whole frame are in no window.
    """
    hop = max(1, length // 2 // frame) * frame
    head = -offset % frame
    last = head + max(0, samples - head - length) // frame * frame
    begins = sorted({head, *range(-offset % hop, last, hop), last})
    middles = [head + ((a + length + b) // 2 - head) // frame * frame for a, b in itertools.pairwise(begins)]
    return list(zip(begins, [head, *middles], [*middles, samples], strict=True))


def write(spec: DataSpec, path: Path, chunks: Iterator[Coded], about: Mapping[str, Any]) -> list[Path]:
    """Write the tokens to a table with a line each (.csv), or as arrays (.npz).

    Columns: `station`, `record`, `time` (UTC, of the token's first sample; seconds from the record's begin where its
    date is not known), `code0`, `code1`, ... Arrays: `codes` [n, Q], `time` [n] in seconds since 1970, `record` [n]
    (an index into `records` and `stations`), `seconds` (of a token), `codebook_sizes` and `model`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise VqtoolError(f"tokens are written to .csv or .npz, not to `{path.name}`", hint=f"--out {path.stem}.csv")
    records: dict[tuple[str, str], int] = {}
    codes, times, owners, seconds = [], [], [], math.nan
    for chunk in chunks:
        number = records.setdefault((chunk.about["record"], chunk.about["station"]), len(records))
        kept, at, seconds = _kept(chunk, spec)
        codes.append(kept)
        times.append(at)
        owners.append(np.full(len(at), number))
    if not codes:
        raise VqtoolError("there is nothing to encode")
    columns = (np.concatenate(codes), np.concatenate(times), np.concatenate(owners))
    if path.suffix.lower() == ".npz":
        names, stations = (np.array(list(part)) for part in zip(*records, strict=True))
        _save_npz(path, *columns, names, stations, seconds, about)
    else:
        write_atomic(path, _table(*columns, list(records)).encode())
    return [path]


def _records(path: Path, rate: float, notes: list[str]) -> Iterator[Record]:
    if path.is_dir() and any(path.glob("metadata*.csv")):
        folder = SeisBenchFolder(path, rate)
        notes += [*folder.notes, *(f"skipped {n} traces: {why}" for why, n in folder.skipped.items())]
        for trace in folder.traces:
            whole = folder.whole(trace)
            yield Record(trace.name, trace.station, trace.samples, trace.start,
                         lambda begin, count, whole=whole: whole[:, begin : begin + count])  # fmt: skip
        return
    recordings = Recordings(path)
    notes += [*recordings.notes, *(f"skipped {n}: {why}" for why, n in recordings.skipped.items())]
    for stretch in recordings.stretches:
        if stretch.rate != rate:
            notes.append(f"{stretch.instrument}: resampled from {stretch.rate:g} to {rate:g} Hz")

        def part(begin: int, count: int, stretch: Any = stretch) -> Samples:
            return recordings.read(stretch, stretch.begin + begin / rate, count, rate)

        name = f"{stretch.instrument} {_utc(stretch.begin)}"
        offset = round(stretch.begin * rate)
        yield Record(name, stretch.station, samples_of(stretch, rate), stretch.begin, part, offset)


def _standardised(record: Record, plan: list[tuple[int, int, int]], spec: DataSpec) -> torch.Tensor:
    """[B, 3, L]: the windows that `plan` tells, in one reading."""
    length, level = spec.length, int(spec.about.get("level", spec.length))
    first = max(0, min(plan[0][0] - level, record.samples - level))
    end = min(record.samples, plan[-1][0] + length + level)
    samples = padded(record.read(first, end - first), plan[-1][0] + length - first)
    return torch.from_numpy(np.stack([standardised(samples, begin - first, length, level)[0] for begin, _, _ in plan]))


def _about(record: Record, plan: list[tuple[int, int, int]], rate: float) -> dict[str, Any]:
    return {"record": record.name, "station": record.station, "start": record.start, "samples": record.samples,
            "rate": rate, "windows": plan}  # fmt: skip


def _kept(chunk: Coded, spec: DataSpec) -> tuple[np.ndarray, np.ndarray, float]:
    """The kept tokens [n, Q] of a piece, the times [n] they begin at, and how many seconds each lasts."""
    codes, about = chunk.codes.numpy(), chunk.about
    samples = spec.length / codes.shape[1]
    start = 0.0 if math.isnan(about["start"]) else about["start"]
    within = samples * np.arange(codes.shape[1])
    kept, times = [], []
    for window, (begin, low, high) in zip(codes, about["windows"], strict=True):
        at = begin + within
        inside = (at + samples / 2 >= low) & (at + samples / 2 < high) & (at + samples <= about["samples"])
        kept.append(window[inside])
        times.append(start + at[inside] / about["rate"])
    return np.concatenate(kept), np.concatenate(times), samples / about["rate"]


def _table(codes: np.ndarray, times: np.ndarray, owners: np.ndarray, records: list[tuple[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    records = [(text_cell(name), text_cell(station)) for name, station in records]
    writer.writerow(["station", "record", "time", *(f"code{q}" for q in range(codes.shape[1]))])
    for row, time, owner in zip(codes.tolist(), times.tolist(), owners.tolist(), strict=True):
        name, station = records[owner]
        writer.writerow([station, name, _utc(time) if time > 86400 * 365 else f"{time:.2f}", *row])
    return text.getvalue()


def _save_npz(path: Path, codes: np.ndarray, times: np.ndarray, owners: np.ndarray, names: np.ndarray,
              stations: np.ndarray, seconds: float, about: Mapping[str, Any]) -> None:  # fmt: skip
    save_npz(path, {
        "codes": codes.astype(np.int32), "time": times, "record": owners.astype(np.int32), "records": names,
        "stations": stations, "seconds": seconds, "codebook_sizes": np.array(about["codebook_sizes"]),
        "model": np.array(about["model"]),
    })  # fmt: skip


def _utc(time: float) -> str:
    return datetime.fromtimestamp(round(time, 3), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
