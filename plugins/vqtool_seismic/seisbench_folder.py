"""The SeisBench format, read with h5py alone: metadata and waveforms, chunked sets, traces stored in blocks."""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.errors import VqtoolError, missing_extra
from vqtool.untrusted import RATIO, UNPACKED, no_twins
from vqtool_seismic.obspy_files import RATES
from vqtool_seismic.traces import (
    COMPONENTS,
    Samples,
    Trace,
    at_rate,
    bridged,
    component_of,
    length_at,
    resampled,
    resampling_notes,
    seconds_of,
)

# Phases by the names that published sets use; the first column that holds a number counts.
P = tuple(f"trace_{phase}_arrival_sample" for phase in ("p", "P", "Pg", "Pn", "P1", "pP"))
S = tuple(f"trace_{phase}_arrival_sample" for phase in ("s", "S", "Sg", "Sn", "S1", "sS"))
LONGEST = 2**26  # samples of a trace, which is read whole
FILES = (("metadata", "csv"), ("waveforms", "hdf5"))
NAME = re.compile(r"(?P<block>[^$]+)(\$(?P<row>\d+)(?P<cuts>(,[^,]*)*))?")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trace is in the HDF5 file: the data set's name, and in a block its row and the part of the row."""

    block: str
    row: int | None
    cuts: tuple[slice, ...]

    @classmethod
    def of(cls, name: str) -> Place | None:
        """`block`, or `bucket0$5,:3,:1200` (row 5, of it three components and 1200 samples); None for anything else."""
        found = NAME.fullmatch(name)
        if found is None:
            return None
        try:
            cuts = tuple(_slice(text) for text in (found["cuts"] or "").split(",")[1:])
        except ValueError:
            return None
        return cls(found["block"], None if found["row"] is None else int(found["row"]), cuts)

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape of the trace in a data set of the shape `stored`; None where the data set has no such row."""
        if self.row is not None:
            if not stored or self.row >= stored[0]:
                return None
            stored = stored[1:]
        if len(self.cuts) > len(stored):
            return None
        cut = tuple(len(range(*c.indices(n))) for c, n in zip(self.cuts, stored, strict=False))
        return cut + stored[len(cut) :]


@dataclass(frozen=True, slots=True)
class Order:
    """How a chunk lays out its waveforms."""

    components: str  # "ZNE"
    samples_first: bool  # [W, C] in place of [C, W]
    rate: float | None  # Hz, of every trace, where the file says so

    @classmethod
    def of(cls, file: Any, where: str) -> Order:
        """From the group `data_format`; where there is none, [C, W] in the order Z, N, E, as SeisBench assumes."""
        form = {name: _text(value[()]) for name, value in file["data_format"].items()} if "data_format" in file else {}
        axes = [a for a in str(form.get("dimension_order", "CW")).upper() if a in "CW"]
        if sorted(axes) != ["C", "W"]:
            raise VqtoolError(f"the dimension order `{form['dimension_order']}` is not made of N, C and W", where=where)
        rate = form.get("sampling_rate")
        return cls(str(form.get("component_order", COMPONENTS)).upper(), axes[0] == "W", _number(rate))


class SeisBenchFolder:
    """Traces of `metadata*.csv` and `waveforms*.hdf5`; the files are opened when read, anew in every process."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self.skipped: Counter[str] = Counter()
        self._undated = 0
        self._open: dict[tuple[int, str], Any] = {}
        self._orders: dict[str, Order] = {}
        stored = [trace for chunk in chunks(path) for trace in self._chunk(chunk)]
        self.traces = tuple(at_rate(trace, rate) for trace in stored)
        self.notes = resampling_notes(stored, rate)
        if self._undated:
            self.notes.append(f"{self._undated} traces have a trace_start_time that cannot be read: taken as undated")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # an open HDF5 file cannot be handed to another process

    def whole(self, trace: Trace) -> Samples:
        """[3, trace.samples]: Z, N, E at the rate asked for; what is not finite is bridged by a line."""
        chunk = trace.key.partition("/")[0]
        place, order = Place.of(trace.name), self._orders[chunk]
        assert place is not None  # `_trace` has read it
        with sound(self.path / f"waveforms{chunk}.hdf5"):
            block = self._file(chunk)["data"][place.block]
            array = block[place.cuts] if place.row is None else block[(place.row, *place.cuts)]
            array = np.asarray(array, dtype=np.float32)
        stored = arranged(array.T if order.samples_first else array, order.components)
        return resampled(stored, trace.rate, self.rate)[:, : trace.samples]

    def _file(self, chunk: str) -> Any:
        key = (os.getpid(), chunk)  # after a fork the parent's file is not ours to read
        if key not in self._open:
            self._open[key] = opened(self.path / f"waveforms{chunk}.hdf5")
        return self._open[key]

    def _chunk(self, chunk: str) -> Iterator[Trace]:
        path = self.path / f"waveforms{chunk}.hdf5"
        file = self._file(chunk)
        with sound(path):
            if "data" not in file or not hasattr(file["data"], "keys"):
                raise VqtoolError("there is no group `data`", where=str(path))
            order = self._orders[chunk] = Order.of(file, str(path))
        shapes: dict[str, tuple[int, ...] | None] = {}
        for row in rows_of(self.path / f"metadata{chunk}.csv"):
            with sound(path):
                trace = _trace(row, chunk, file["data"], order, shapes)
            if not isinstance(trace, str) and length_at(trace.samples, trace.rate, self.rate) > LONGEST:
                trace = f"more than {LONGEST:,} samples at {self.rate:g} Hz"
            if isinstance(trace, str):
                self.skipped[trace] += 1
                continue
            self._undated += math.isnan(trace.start) and bool((row.get("trace_start_time") or "").strip())
            yield trace


def _trace(row: dict[str, str], chunk: str, data: Any, order: Order, shapes: dict[str, tuple[int, ...] | None]
           ) -> Trace | str:  # fmt: skip
    """The trace of one line of the metadata, or why there can be none."""
    name = row.get("trace_name") or ""
    place = Place.of(name)
    if place is None:
        return "a trace_name that cannot be read"
    if place.block not in shapes:
        shapes[place.block] = _shape(data, place.block)
    stored = shapes[place.block]
    shape = None if stored is None else place.shape(stored)
    if shape is None:
        return "no waveform of its trace_name"
    components, samples = (shape[1], shape[0]) if order.samples_first else (shape[0], shape[-1])
    if len(shape) != 2 or not 0 < components <= len(order.components) or samples < 2:
        return "an empty waveform, or one that is not components by samples"
    rate = _rate(row) or order.rate
    if rate is None:
        return "no sampling rate"
    if not RATES[0] <= rate <= RATES[1]:
        return "a sampling rate that cannot be"
    named = ".".join(part for part in (row.get("station_network_code"), row.get("station_code")) if part)
    key = f"{chunk}/{place.block}" + ("" if place.row is None else f"/{place.row}")
    return Trace(
        key=key,
        name=name,
        station=named or key,
        samples=samples,
        rate=rate,
        p=_first(row, P),
        s=_first(row, S),
        noise="noise" in (row.get("trace_category") or "").lower(),
        split=(row.get("split") or "").strip().lower(),
        start=_start(row),
    )


def _shape(data: Any, name: str) -> tuple[int, ...] | None:
    """The shape of a data set of numbers; None where there is none of the name."""
    found = data.get(name)
    if not hasattr(found, "shape"):
        return None
    if found.dtype.kind not in "fiu":
        raise VqtoolError(f"`data/{name}` holds {found.dtype}, not real numbers", where=data.file.filename)
    shape = tuple(int(n) for n in found.shape)
    size = os.path.getsize(data.file.filename)
    if math.prod(shape[1:] if len(shape) == 3 else shape) * found.dtype.itemsize > max(UNPACKED, RATIO * size):
        raise VqtoolError(f"`data/{name}` has the shape {shape}: more than the file can hold", where=data.file.filename)
    return shape


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """What h5py raises in a damaged file becomes one error that names it."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise VqtoolError(f"`{path.name}` is damaged: {reason}", hint="fetch it again", where=str(path)) from error


def chunks(path: Path) -> list[str]:
    """The endings of a chunked set's files, from its file `chunks`; [""] for a set in one piece.

    Raises VqtoolError where a file is missing.
    """
    listed = path / "chunks"
    endings = listed.read_text(encoding="utf-8").split() if listed.is_file() else [""]
    if not listed.is_file() and not (path / "metadata.csv").is_file():  # a chunked set without the list
        endings = sorted(p.stem.removeprefix("metadata") for p in path.glob("metadata*.csv")) or [""]
    for name in (f"{kind}{end}.{suffix}" for end in endings for kind, suffix in FILES):
        if not (path / name).is_file():
            raise VqtoolError(
                f"there is no `{name}` in `{path}`",
                hint="a SeisBench folder holds metadata.csv and waveforms.hdf5",
                where="[data] path",
            )
    return endings


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """The lines of a metadata file by column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            no_twins(reader.fieldnames or (), path)
            if "trace_name" not in (reader.fieldnames or ()):
                raise VqtoolError("the metadata have no column `trace_name`", where=str(path))
            yield from reader
    except (UnicodeDecodeError, csv.Error) as error:
        raise VqtoolError(f"the metadata cannot be read: {error}", where=str(path)) from error


def opened(path: Path) -> Any:
    """An HDF5 file for reading. Raises VqtoolError where h5py is not installed or the file is none."""
    try:
        import h5py
    except ImportError as fault:
        raise missing_extra("h5py", "seismic", "data `seisbench`") from fault
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise VqtoolError(f"cannot be read as HDF5: {error}", where=str(path)) from error


def arranged(array: Samples, components: str) -> Samples:
    """[C, W] in the order `components` as [3, W] in the order Z, N, E; absent ones are zero, NaN and inf bridged."""
    made = np.zeros((len(COMPONENTS), array.shape[1]), dtype=np.float32)
    for channel, letter in zip(array, components, strict=False):
        component = component_of(letter)
        if component is not None:
            made[COMPONENTS.index(component)] = channel
    return bridged(made)


def _slice(text: str) -> slice:
    parts = [int(part) if part else None for part in text.split(":")]
    if not 1 < len(parts) <= 3:
        raise ValueError(text)
    return slice(*parts)


def _rate(row: dict[str, str]) -> float | None:
    """Hz of one line: its rate, or one over its sampling interval."""
    rate, step = _number(row.get("trace_sampling_rate_hz")), _number(row.get("trace_dt_s"))
    return rate or (1 / step if step else None)


def _start(row: dict[str, str]) -> float:
    """Seconds since 1970 of the first sample; NaN where the metadata do not say it."""
    try:
        return seconds_of(row.get("trace_start_time") or "")
    except ValueError:
        return math.nan


def _first(row: dict[str, str], names: tuple[str, ...]) -> float:
    """The first number among the columns; NaN where none has one."""
    return next((v for v in (_number(row.get(name)) for name in names) if v is not None), math.nan)


def _number(value: Any) -> float | None:
    """A positive number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
