"""Clips: any stretch of any file of a folder, at one rate and loudness, in one channel, within bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool_speech import audio
from vqtool_speech.loudness import Loudness, peak_of

Wave = NDArray[np.float32]  # [frames]
Normalise = Literal["peak", "ebu", "none"]
PEAK = 0.95  # of full scale, for `peak`
LOUDNESS = -23.0  # LUFS, for `ebu`: the target of EBU R 128
MARGIN = 1024  # samples of the codec's rate read on either side of a stretch that is resampled


@dataclass(frozen=True, slots=True)
class Clip:
    """One channel (or the mix) of one file."""

    path: Path
    info: audio.Info
    channel: int = 0

    def samples(self, rate: int) -> int:
        """How many samples at `rate` cover it."""
        return -(-self.info.frames * rate // self.info.rate)


@dataclass(frozen=True, slots=True)
class Manner:
    """How files become clips; kept in a checkpoint, so that a user's file becomes one in the same manner."""

    rate: int
    mix: audio.Mix = "mean"
    normalise: Normalise = "peak"


class Clips:
    """The clips of a folder or file, in the order of their names; what was read last stays in memory up to a bound."""

    def __init__(self, files: Iterable[Path], manner: Manner, *, cache_mb: float = 256) -> None:
        self.manner = manner
        self.clips: list[Clip] = []
        for path in files:
            found = audio.info(path)
            self.clips += [Clip(path, found, k) for k in range(found.channels if manner.mix == "each" else 1)]
        self.bound = int(cache_mb * 2**20)
        self.gains: dict[int, float] = {}
        self.cache: OrderedDict[int, Wave] = OrderedDict()
        self.cached = 0

    def __len__(self) -> int:
        return len(self.clips)

    def samples(self, clip: int) -> int:
        """The length of a clip at the codec's rate."""
        return self.clips[clip].samples(self.manner.rate)

    def gain(self, clip: int) -> float:
        """What a clip is multiplied by; its file is read through once, block by block."""
        if clip not in self.gains:
            self.gains[clip] = gain_of(self.clips[clip], self.manner)
        return self.gains[clip]

    def silent(self, clip: int) -> bool:
        """Whether all samples of a clip are zero."""
        blocks = audio.blocks(self.clips[clip].path)
        return peak_of(_channel(block, self.clips[clip], self.manner) for block in blocks) == 0

    def stretch(self, clip: int, start: int, frames: int) -> Wave:
        """Samples `start` to `start + frames` of a clip at the codec's rate, times its gain; zeros outside of it."""
        if clip in self.cache:
            self.cache.move_to_end(clip)
        elif self.samples(clip) * 4 > self.bound // 4:  # too long to keep
            return at_rate(self.clips[clip], self.manner, start, frames) * np.float32(self.gain(clip))
        else:
            whole = at_rate(self.clips[clip], self.manner, 0, self.samples(clip)) * np.float32(self.gain(clip))
            self.cache[clip] = whole
            self.cached += whole.nbytes
            while self.cached > self.bound:
                self.cached -= self.cache.popitem(last=False)[1].nbytes
        whole = self.cache[clip]
        out = np.zeros(frames, np.float32)
        first, last = max(0, start), min(len(whole), start + frames)
        if first < last:
            out[first - start : last - start] = whole[first:last]
        return out


def at_rate(clip: Clip, manner: Manner, start: int, frames: int) -> Wave:
    """Samples `start` to `start + frames` of a clip at the codec's rate, resampled with what lies around them."""
    source, rate = clip.info.rate, manner.rate
    if source == rate:
        return _channel(audio.read(clip.path, start, frames), clip, manner)
    common = math.gcd(source, rate)
    begin = (start - MARGIN) // (rate // common)  # in units that are whole samples at both rates
    end = -(-(start + frames + MARGIN) // (rate // common))
    sound = audio.read(clip.path, begin * (source // common), (end - begin) * (source // common))
    whole = audio.resample(_channel(sound, clip, manner)[:, None], source, rate)[:, 0]
    lead = start - begin * (rate // common)
    return np.ascontiguousarray(whole[lead : lead + frames])


def _channel(sound: audio.Sound, clip: Clip, manner: Manner) -> Wave:
    return np.ascontiguousarray(audio.mixed(sound, manner.mix)[:, clip.channel])


def gain_of(clip: Clip, manner: Manner) -> float:
    """The factor that brings a clip to its loudness, measured at the file's own rate; 1 for silence.

    `ebu` never lets the peak exceed full scale: a sound that would clip stays softer than the target.
    """
    if manner.normalise == "none":
        return 1.0
    blocks = (_channel(block, clip, manner) for block in audio.blocks(clip.path))
    if manner.normalise == "peak":
        peak = peak_of(blocks)
        return PEAK / peak if peak > 0 else 1.0
    meter = Loudness(clip.info.rate, 1)
    for block in blocks:
        meter.add(block[:, None])
    loudness = meter.integrated()
    return min(10 ** ((LOUDNESS - loudness) / 20), 1 / meter.peak) if math.isfinite(loudness) else 1.0


def audio_files(path: Path) -> list[Path]:
    """The audio files of a folder (and of the folders in it) by name, or the one file."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise VqtoolError(f"there is no folder or file `{path}`")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in audio.SUFFIXES and p.is_file())
    if not found:
        kinds = ", ".join(audio.SUFFIXES)
        raise VqtoolError(f"there are no audio files in `{path}`", hint=f"files that end in {kinds} are taken")
    return found
