"""Audio files in and out: formats and rates by libraries, block by block, so that a file may be longer than memory."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError, missing_extra
from vqtool.files import missing_file, replacing

Sound = NDArray[np.float32]  # [frames, channels]
Mix = Literal["mean", "first", "each"]
BLOCK = 2**16  # frames read at a time; fewer of very many channels
MANY = 8  # channels
RATES = (100, 1_000_000)  # Hz, of a file
UNKNOWN = 2**31 - 2**16  # bytes: who writes so many promises all that a header can, not knowing the length
STRAY = 4096  # bytes after the end of a .wav that may be anything
WAV_BYTES = 2**32 - 2**16  # of samples: the sizes in the header of a .wav have 32 bits
SUFFIXES = (
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au",
    ".snd", ".caf", ".sph", ".voc",
)  # fmt: skip
FOREIGN = (  # of sound that libsndfile cannot read
    ".m4a", ".m4b", ".mp4", ".aac", ".wma", ".amr", ".3gp", ".webm", ".mka", ".ape", ".wv", ".ac3", ".dsf", ".ra",
    ".tta",
)  # fmt: skip
CONVERT = "ffmpeg -i {} {}"


@dataclass(frozen=True, slots=True)
class Info:
    """What a file's header says."""

    rate: int  # Hz
    frames: int
    channels: int
    missing: int = 0  # bytes that the header promises and the file does not have
    unfinished: bool = False  # the header says that there is nothing, as that of a recorder which was killed
    uncounted: int = 0  # bytes after the samples that the header does not know of


class UnreadableError(VqtoolError):
    """A file that cannot be used. `kind` says why in a few words: in a folder such files are skipped and counted."""

    def __init__(self, message: str, *, kind: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class Unfinished(io.FileIO):
    """A .wav of which the sizes were never written, read as if they promised all that a header can."""

    def __init__(self, path: Path, at: int) -> None:
        super().__init__(path)
        self.fields = [(4, b"\xff" * 4), (at, b"\xff" * 4)]

    def readinto(self, buffer: Any) -> int:
        """Read, with the sizes replaced."""
        start, view = self.tell(), memoryview(buffer).cast("B")
        count = super().readinto(view) or 0
        for at, value in self.fields:
            for k, byte in enumerate(value):
                if start <= at + k < start + count:
                    view[at + k - start] = byte
        return count


def library(name: str) -> Any:
    """`soundfile` or `soxr`; the error names the extra that brings it."""
    try:
        return __import__(name)
    except ImportError as fault:
        raise missing_extra(name, "audio", "reading audio files") from fault


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, bool]]:
    """The open file, and whether it is `Unfinished`."""
    soundfile = library("soundfile")
    if path.suffix.lower() == ".raw":
        raise not_audio(path, ValueError("a .raw file does not say its rate and format"))
    try:
        with ExitStack() as held:
            file = held.enter_context(soundfile.SoundFile(str(path)))
            at, uncounted = (0, 0) if file.frames else _samples_of(path)
            if uncounted:
                file = held.enter_context(soundfile.SoundFile(held.enter_context(Unfinished(path, at))))
            yield file, uncounted > 0
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise not_audio(path, error) from error


def _samples_of(path: Path) -> tuple[int, int]:
    """Where the size of a .wav's samples stands, and how many bytes after them belong to no part of the file."""
    with path.open("rb") as file:
        head, end = file.read(12), path.stat().st_size
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0, 0
        while len(chunk := file.read(8)) == 8:
            begin, size = file.tell(), int.from_bytes(chunk[4:], "little")
            file.seek(begin + size + size % 2)
            if chunk[:4] == b"data":
                after = file.read(8)
                known = after[:4].strip().isalnum() and file.tell() + int.from_bytes(after[4:], "little") <= end
                return begin - 4, 0 if known else max(0, end - begin - size)
    return 0, 0


def info(path: Path) -> Info:
    """Rate, length and channels of a file."""
    with opened(path) as (file, unfinished):
        rate, frames, channels, report = file.samplerate, file.frames, file.channels, file.extra_info
    if frames <= 0:
        raise UnreadableError(
            f"`{path}` holds no sound that can be read",
            kind="no sound in it",
            hint="it may be cut short: copy or record it again, or leave it out",
        )
    if not RATES[0] <= rate <= RATES[1]:
        raise UnreadableError(
            f"`{path}` has a sample rate of {rate} Hz; {RATES[0]} to {RATES[1]} can be read",
            kind=f"a sample rate not of {RATES[0]} to {RATES[1]} Hz",
            hint="its header may be damaged: make the file again, or leave it out",
        )
    uncounted = 0 if unfinished else _samples_of(path)[1]
    return Info(rate, frames, channels, _missing(report), unfinished, uncounted if uncounted > STRAY else 0)


def _missing(report: str) -> int:
    """How many bytes of those that a header promises are not there, as libsndfile reports.

    A program that writes to a pipe does not know the length and promises as much as the header can.
    """
    pattern = r"^ *(?:data|Data Size|SSND|riff|Riff size) *: (\d+) \(should be (\d+)\)$"
    sizes = re.search(pattern, report, re.MULTILINE)
    promised, there = map(int, sizes.groups()) if sizes else (0, 0)
    return max(0, promised - there) if promised < UNKNOWN else 0


def read(path: Path, start: int, frames: int) -> Sound:
    """`frames` frames from `start`, [frames, channels]; zeros before the beginning and after the end."""
    with opened(path) as (file, _):
        first, last = max(0, start), min(file.frames, start + frames)
        out = np.zeros((frames, file.channels), np.float32)
        if first < last:
            file.seek(first)
            got = file.read(last - first, dtype="float32", always_2d=True)
            out[first - start : first - start + len(got)] = got
    return finite(out, path)


def blocks(path: Path, size: int = BLOCK) -> Iterator[Sound]:
    """The whole file, [up to `size`, channels] at a time."""
    with opened(path) as (file, _):
        size = -(-size * MANY // max(MANY, file.channels))
        while len(block := file.read(size, dtype="float32", always_2d=True)):
            yield finite(block, path)


def resampled(source: Iterator[Sound], channels: int, rate: int, to: int) -> Iterator[Sound]:
    """A sound at another rate, block by block; sample k of the output is at the time of k / `to` seconds."""
    if rate == to:
        yield from source
        return
    stream = library("soxr").ResampleStream(rate, to, channels, dtype="float32")
    for block in source:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)


def resample(sound: Sound, rate: int, to: int) -> Sound:
    """All of a sound in memory at another rate."""
    return sound if rate == to else library("soxr").resample(sound, rate, to)


def mixed(sound: Sound, mix: Mix) -> Sound:
    """[frames, channels] to one channel, or (`each`) as it is."""
    if mix == "each" or sound.shape[1] == 1:
        return sound
    return sound.mean(1, keepdims=True) if mix == "mean" else sound[:, :1]


class Writer:
    """Writes a sound block by block to an open file; see `written`."""

    def __init__(self, file: Any, *, whole: bool) -> None:
        self.file, self.whole = file, whole

    def write(self, sound: Sound) -> None:
        """[frames, channels]; of 16 bits, what is beyond full scale is cut off."""
        if not np.isfinite(sound).all():
            raise VqtoolError("the decoder gives NaN or infinite samples", hint="vqtool diagnose", exit_code=1)
        if self.whole:  # rounded here: the library would cut fractions off, which shifts and doubles the noise
            sound = np.clip(np.rint(sound * 2**15), -(2**15), 2**15 - 1).astype(np.int16)
        self.file.write(sound)


@contextmanager
def written(path: Path, rate: int, channels: int, *, frames: int, loud: bool = False) -> Iterator[Writer]:
    """A file to write a sound of up to `frames` frames to, which is in its place, whole, when the block ends.

    16 bits a sample, each rounded to the nearest; 32-bit floats of a `loud` sound, which goes beyond full scale, where
    the format has them.
    """
    soundfile = library("soundfile")
    kind = (path.suffix.lower().lstrip(".") or "wav").upper()
    if kind not in soundfile.available_formats():
        raise VqtoolError(f"`{path}`: .{kind.lower()} cannot be written", hint="name it .wav or .flac")
    fits = (s for s in ("FLOAT" if loud and kind != "RAW" else "PCM_16", "PCM_16") if soundfile.check_format(kind, s))
    subtype = next(fits, None)
    if kind == "WAV" and frames * channels * (4 if subtype == "FLOAT" else 2) > WAV_BYTES:
        raise VqtoolError(
            f"`{path}`: {frames / rate / 3600:.1f} hours are too long for .wav, which holds 4 GiB",
            hint="name it .w64 or .flac",
        )
    try:
        with (
            replacing(path) as place,
            soundfile.SoundFile(
                place.fileno(),
                "w",
                samplerate=rate,
                channels=channels,
                format=kind,
                subtype=subtype,
                endian="LITTLE" if kind == "RAW" else None,
                closefd=False,
            ) as file,
        ):
            yield Writer(file, whole=subtype == "PCM_16")
    except soundfile.LibsndfileError as error:
        raise VqtoolError(
            f"cannot write `{path}` at {rate} Hz with {channels} channels: {error}",
            hint="name it .wav, or free some space",
            exit_code=1,
        ) from error


def finite(sound: Sound, path: Path) -> Sound:
    """`sound`, if it holds numbers only."""
    if not np.isfinite(sound).all():
        message = f"`{path}` holds NaN or infinite samples"
        raise UnreadableError(message, kind="NaN or infinite samples in it", hint="repair it or leave it out")
    return sound


def not_audio(path: Path, error: Exception) -> VqtoolError:
    """The error for a file that cannot be read."""
    if not path.is_file():
        return missing_file(path)
    if path.suffix.lower() in FOREIGN:
        return UnreadableError(
            f"`{path}`: {path.suffix} files cannot be read",
            kind=foreign(path),
            hint=CONVERT.format(path.name, path.with_suffix(".wav").name),
        )
    return UnreadableError(
        f"`{path}` is not an audio file that can be read: {error}",
        kind="not audio that can be read, or damaged",
        hint="wav, flac, ogg and mp3 can be",
    )


def foreign(path: Path) -> str:
    """Why a file of one of the `FOREIGN` formats is skipped."""
    suffix = path.suffix.lower()
    return f"{suffix} cannot be read: {CONVERT.format(f'NAME{suffix}', 'NAME.wav')} converts it"
