"""Audio files in and out: formats and rates by libraries, block by block, so that a file may be longer than memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError, missing_extra
from vqtool.files import replacing

Sound = NDArray[np.float32]  # [frames, channels]
Mix = Literal["mean", "first", "each"]
BLOCK = 2**16  # frames read at a time; fewer of very many channels
MANY = 8  # channels
RATES = (100, 1_000_000)  # Hz, of a file
UNKNOWN = 2**31 - 2**16  # bytes: who writes so many promises all that a header can, not knowing the length
WAV_BYTES = 2**32 - 2**16  # of samples: the sizes in the header of a .wav have 32 bits
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".au", ".opus", ".w64")


@dataclass(frozen=True, slots=True)
class Info:
    """What a file's header says."""

    rate: int  # Hz
    frames: int
    channels: int
    missing: int = 0  # bytes that the header promises and the file does not have


def library(name: str) -> Any:
    """`soundfile` or `soxr`; the error names the extra that brings it."""
    try:
        return __import__(name)
    except ImportError as fault:
        raise missing_extra(name, "audio", "reading audio files") from fault


def info(path: Path) -> Info:
    """Rate, length and channels of a file."""
    soundfile = library("soundfile")
    try:
        found = soundfile.info(str(path), verbose=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise not_audio(path, error) from error
    if found.frames <= 0:
        raise VqtoolError(f"`{path}` holds no sound", hint="leave it out")
    if not RATES[0] <= found.samplerate <= RATES[1]:
        raise VqtoolError(
            f"`{path}` has a sample rate of {found.samplerate} Hz; {RATES[0]} to {RATES[1]} can be read",
            hint="its header may be damaged: make the file again, or leave it out",
        )
    return Info(found.samplerate, found.frames, found.channels, _missing(found.extra_info))


def _missing(report: str) -> int:
    """How many bytes of those that the header of a .wav promises are not there, as libsndfile reports.

    A program that writes to a pipe does not know the length and promises as much as the header can.
    """
    sizes = re.search(r"^data : (\d+) \(should be (\d+)\)$", report, re.MULTILINE)
    promised, there = map(int, sizes.groups()) if sizes else (0, 0)
    return max(0, promised - there) if promised < UNKNOWN else 0


def read(path: Path, start: int, frames: int) -> Sound:
    """`frames` frames from `start`, [frames, channels]; zeros before the beginning and after the end."""
    soundfile = library("soundfile")
    try:
        with soundfile.SoundFile(str(path)) as file:
            first, last = max(0, start), min(file.frames, start + frames)
            out = np.zeros((frames, file.channels), np.float32)
            if first < last:
                file.seek(first)
                got = file.read(last - first, dtype="float32", always_2d=True)
                out[first - start : first - start + len(got)] = got
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise not_audio(path, error) from error
    return finite(out, path)


def blocks(path: Path, size: int = BLOCK) -> Iterator[Sound]:
    """The whole file, [up to `size`, channels] at a time."""
    soundfile = library("soundfile")
    try:
        with soundfile.SoundFile(str(path)) as file:
            size = -(-size * MANY // max(MANY, file.channels))
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                yield finite(block, path)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise not_audio(path, error) from error


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
    fits = (s for s in ("FLOAT" if loud else "PCM_16", "PCM_16") if soundfile.check_format(kind, s))
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
                place.fileno(), "w", samplerate=rate, channels=channels, format=kind, subtype=subtype, closefd=False
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
        raise VqtoolError(f"`{path}` holds NaN or infinite samples", hint="repair it or leave it out")
    return sound


def not_audio(path: Path, error: Exception) -> VqtoolError:
    """The error for a file that cannot be read."""
    if not path.is_file():
        return VqtoolError(f"there is no file `{path}`")
    return VqtoolError(f"`{path}` is not an audio file that can be read: {error}", hint="wav, flac, ogg and mp3 can be")
