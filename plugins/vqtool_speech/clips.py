"""Clips: any stretch of any file of a folder, at one rate and loudness, in one channel, within bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool_speech import audio
from vqtool_speech.loudness import Loudness

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
            gain = 1.0
            if self.manner.normalise != "none":
                gain = measured(self.clips[clip].path, self.manner).gains[self.clips[clip].channel]
            self.gains[clip] = 1.0 if math.isinf(gain) else gain
        return self.gains[clip]

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
    first, last, lead = _around(start, frames, source, rate)
    sound = audio.read(clip.path, first, last - first)
    whole = audio.resample(_channel(sound, clip, manner)[:, None], source, rate)[:, 0]
    return np.ascontiguousarray(whole[lead : lead + frames])


def _around(start: int, frames: int, source: int, rate: int) -> tuple[int, int, int]:
    """For `frames` samples from `start` on at `rate`: what is to be read of the source, from and to, and how many
    samples of the result come before `start`. The source is cut where both rates have a sample."""
    common = math.gcd(source, rate)
    begin = (start - MARGIN) // (rate // common)
    end = -(-(start + frames + MARGIN) // (rate // common))
    return begin * (source // common), end * (source // common), start - begin * (rate // common)


def _channel(sound: audio.Sound, clip: Clip, manner: Manner) -> Wave:
    return np.ascontiguousarray(audio.mixed(sound, manner.mix)[:, clip.channel])


@dataclass(frozen=True, slots=True)
class Measured:
    """What a file holds, whatever its header says."""

    frames: int
    gains: tuple[float, ...]  # what brings each channel (or the mix) to its loudness; infinity for silence


def measured(path: Path, manner: Manner, advance: Callable[[int], None] = lambda frames: None) -> Measured:
    """The length of a file and its gains, measured at its own rate; it is read through once, block by block.

    `advance` hears of the frames that were read. `ebu` never lets the peak exceed full scale: a sound that would clip
    stays softer than the target.
    """
    rate, frames = audio.info(path).rate, 0
    peaks: list[float] = []
    meters: list[Loudness] = []
    for block in audio.blocks(path):
        sound = audio.mixed(block, manner.mix)
        frames += len(sound)
        advance(len(sound))
        now = np.abs(sound).max(0).tolist()
        peaks = list(map(max, peaks or now, now))
        if manner.normalise == "ebu":
            meters = meters or [Loudness(rate, 1) for _ in now]
            for meter, channel in zip(meters, sound.T, strict=True):
                meter.add(np.ascontiguousarray(channel)[:, None])
    if not frames:
        raise VqtoolError(f"`{path}` holds no sound", hint="leave it out")
    loudness = [meter.integrated() for meter in meters] or [math.nan] * len(peaks)
    return Measured(frames, tuple(_gain(*pair, manner.normalise) for pair in zip(peaks, loudness, strict=True)))


def _gain(peak: float, loudness: float, normalise: Normalise) -> float:
    if peak == 0:
        return math.inf
    if normalise == "peak":
        return PEAK / peak
    return min(10 ** ((LOUDNESS - loudness) / 20), 1 / peak) if math.isfinite(loudness) else 1.0


def at_codec_rate(path: Path, manner: Manner, frames: int) -> Iterator[audio.Sound]:
    """The whole of a file of `frames` frames at the codec's rate, [n, channels] at a time.

    Bit for bit what `at_rate` gives of all of it at once: the resampler is fed the same zeros before and after.
    """
    source, rate = audio.info(path).rate, manner.rate
    sound = (audio.mixed(block, manner.mix) for block in audio.blocks(path))
    if source == rate:
        yield from sound
        return
    left = -(-frames * rate // source)
    first, last, lead = _around(0, left, source, rate)
    block = next(sound)
    channels = block.shape[1]
    fed = chain(_zeros(-first, channels), [block], sound, _zeros(last - frames, channels))
    for made in audio.resampled(fed, channels, source, rate):
        kept = made[lead : lead + left]
        lead, left = lead - min(lead, len(made)), left - len(kept)
        if len(kept):
            yield kept


def _zeros(frames: int, channels: int) -> Iterator[audio.Sound]:
    for start in range(0, frames, audio.BLOCK):
        yield np.zeros((min(audio.BLOCK, frames - start), channels), np.float32)


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
