"""Files that ObsPy reads, by a format that is found without its pickles: reading one of those would run its code."""

from __future__ import annotations

import contextlib
import glob
import io
import itertools
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from vqtool.errors import VqtoolError, counted, missing_extra
from vqtool.untrusted import is_pickle, pickled

What = Literal["waveform", "event"]
NEVER = ("PICKLE",)  # ObsPy unpickles whatever names it in its first 100 bytes
PACKED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"PK": "zip"}
WARNED = "was read with"
UNKNOWN = "of no format that ObsPy knows"
DENSEST = 100  # samples a byte: more than any format packs
LONGEST = 300  # characters of a message of ObsPy
RATES = (1e-4, 1e6)  # Hz
TIMES = -62_135_596_800.0, 253_402_214_400.0  # s from 1970: the years that dates of Python have, less a day


def obspy() -> Any:
    """The library. Raises VqtoolError where it is not installed."""
    try:
        import obspy as library
    except ImportError as fault:
        raise missing_extra("obspy", "seismic", "reading seismograms") from fault
    return library


def waveforms(path: Path, notes: list[str] | None = None, span: tuple[int, int] | None = None, **how: Any) -> Any:
    """The `Stream` of a file, or of the bytes `span` of it; what ObsPy warns of goes to `notes`.

    `how` is passed on to ObsPy: `headonly`, `starttime`, `endtime`. Traces without any name that cover the same time,
    as in a SEG-Y gather, get a station each: the file's name and their number.

    Raises:
        VqtoolError: the file is damaged, of an unknown format, or a pickle, which is never read.
    """
    packed = _form(path) == "MSEED"
    trimmed = [] if packed else [how.pop(name, None) for name in ("starttime", "endtime")]
    stream = _read(path, "waveform", notes if notes is not None else [], span, **how)
    if trimmed:
        _number(stream, path)
    if any(trimmed):
        stream.trim(*trimmed)
    held = DENSEST * path.stat().st_size
    for trace in stream:
        if trace.stats.npts > held:
            raise _damaged(path, f"it promises {trace.stats.npts:,} samples")
        rate = trace.stats.sampling_rate
        if trace.stats.npts > 1 and not (packed and rate == 0) and not RATES[0] <= rate <= RATES[1]:  # 0: a log
            raise _damaged(path, f"its sampling rate is {rate:g} Hz")
        for time in (trace.stats.starttime.timestamp, trace.stats.endtime.timestamp):
            if not TIMES[0] <= time <= TIMES[1]:
                raise _damaged(path, f"its time is {time:,.0f} s from 1970, which is in no year from 1 to 9999")
    return stream


def _form(path: Path) -> str:
    return format_of(str(path), path.stat().st_mtime_ns, "waveform")


def _number(stream: Any, path: Path) -> None:
    """Give traces without any name, of which some cover the same time, a station each."""
    nameless = [trace for trace in stream if not trace.id.strip(". ")]
    order = sorted((trace.stats.starttime, trace.stats.endtime) for trace in nameless)
    if any(following[0] < before[1] for before, following in itertools.pairwise(order)):
        for number, trace in enumerate(nameless, 1):
            trace.stats.station = f"{path.stem.replace('.', '_')}-{number}"


def events(path: Path) -> Any:
    """The `Catalog` of a file; errors as of `waveforms`."""
    return _read(path, "event", [])


def _read(path: Path, what: What, notes: list[str], span: tuple[int, int] | None = None, **how: Any) -> Any:
    read = obspy().read if what == "waveform" else obspy().read_events
    form = format_of(str(path), path.stat().st_mtime_ns, what)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # `glob.escape`, since a name with brackets would be taken as a pattern
            source = glob.escape(str(path)) if span is None else io.BytesIO(_bytes(path, *span))
            found = read(source, format=form, check_compression=False, **how)
    except Exception as error:  # ObsPy's readers raise many things on a damaged file
        raise _damaged(path, f"ObsPy cannot read it as {form}: {_first_line(error)}") from error
    for damaged in (True, False):
        texts = [_first_line(one.message) for one in caught if ("Internal" in one.category.__name__) is damaged]
        if texts:
            number = counted(len(texts), "place" if damaged else "warning")
            problem = f"is damaged in {number}" if damaged else f"{WARNED} {number} of ObsPy"
            first = texts[0].removeprefix("readMSEEDBuffer(): ").rstrip(".")
            notes.append(f"`{path.name}` {problem}, the first: {first}")
    return found


def _bytes(path: Path, first: int, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(first)
        return file.read(end - first)


@lru_cache(maxsize=4096)
def format_of(path: str, changed: int, what: What) -> str:
    """ObsPy's name of a file's format; `changed` is when the file was, so that a new one is looked at anew."""
    for name, accepts in _formats(what).items():
        with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):  # of what is not theirs
            if accepts(path):
                return name
    if is_pickle(Path(path)):
        raise pickled(Path(path))
    with open(path, "rb") as file:
        packing = PACKED.get(file.read(2)) if not path.endswith(".npz") else None  # arrays, not seismograms
    usual = "miniSEED, SAC and others" if what == "waveform" else "QuakeML and others, or a .csv table"
    hint = f"it is packed: unpack the {packing} file first" if packing else f"ObsPy reads {usual}"
    raise VqtoolError(f"`{Path(path).name}` is {UNKNOWN}", hint=hint, where=path)


@lru_cache
def _formats(what: What) -> dict[str, Callable[[str], bool]]:
    """ObsPy's formats but those that are `NEVER` read, in its order, each with its check of a file."""
    from obspy.core.util.base import ENTRY_POINTS

    names = [str(name) for name in ENTRY_POINTS[what] if name not in NEVER]
    checks = {name: entry_points(group=f"obspy.plugin.{what}.{name}", name="isFormat") for name in names}
    return {name: next(iter(found)).load() for name, found in checks.items() if found}


def _damaged(path: Path, why: str) -> VqtoolError:
    return VqtoolError(f"`{path.name}` is damaged: {why}", hint="leave it out, or fetch it again", where=str(path))


def _first_line(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:LONGEST]
