"""Clips: any stretch of any file of a folder, at one rate and loudness, in one channel, within bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vqtool.api import DataSpec
from vqtool.errors import VqtoolError
from vqtool.files import missing_file
from vqtool.progress import progress_of
from vqtool_speech import audio
from vqtool_speech.loudness import Loudness
from vqtool_speech.tally import Tally

Wave = NDArray[np.float32]  # [frames]
Normalise = Literal["peak", "ebu", "none"]
PEAK = 0.95  # of full scale, for `peak`
LOUDNESS = -23.0  # LUFS, for `ebu`: the target of EBU R 128
CANCELS = 0.1  # of the energy that a mix of unrelated channels would have: with less, they cancel
READ_FIRST = 2**28  # samples of a data set that are read through before training; files beyond are when they are needed
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

    def __init__(
        self, files: Iterable[Path], manner: Manner, *, cache_mb: float = 256, checked: Checked | None = None
    ) -> None:
        """List the clips; with `checked`, files are read through, and those that cannot be read are skipped."""
        self.manner = manner
        self.clips: list[Clip] = []
        self.gains: dict[int, float] = {}
        for path, found, whole in checked.read(files, manner) if checked else ((p, audio.info(p), None) for p in files):
            gains = whole.gains if whole and manner.normalise != "none" else ()
            self.gains |= {len(self.clips) + k: 1.0 if math.isinf(gain) else gain for k, gain in enumerate(gains)}
            self.clips += [Clip(path, found, k) for k in range(found.channels if manner.mix == "each" else 1)]
        self.bound = int(cache_mb * 2**20)
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
    kept: float = 1.0  # energy of the mix over that of a mix of as loud but unrelated channels


def measured(path: Path, manner: Manner, advance: Callable[[int], None] = lambda frames: None) -> Measured:
    """The length of a file and its gains, measured at its own rate; it is read through once, block by block.

    `advance` hears of the frames that were read. `ebu` never lets the peak exceed full scale: a sound that would clip
    stays softer than the target.
    """
    rate, frames = audio.info(path).rate, 0
    peaks: list[float] = []
    meters: list[Loudness] = []
    energy, expected = 0.0, 0.0
    for block in audio.blocks(path):
        sound = audio.mixed(block, manner.mix)
        if manner.mix == "mean" and block.shape[1] > 1:
            energy += float(np.square(sound, dtype=np.float64).sum())
            expected += float(np.square(block, dtype=np.float64).sum()) / block.shape[1] ** 2
        frames += len(sound)
        advance(len(sound))
        now = np.abs(sound).max(0).tolist()
        peaks = list(map(max, peaks or now, now))
        if manner.normalise == "ebu":
            meters = meters or [Loudness(rate, 1) for _ in now]
            for meter, channel in zip(meters, sound.T, strict=True):
                meter.add(np.ascontiguousarray(channel)[:, None])
    if not frames:
        raise audio.UnreadableError(f"`{path}` holds no sound", kind="no sound in it", hint="leave it out")
    loudness = [meter.integrated() for meter in meters] or [math.nan] * len(peaks)
    gains = tuple(_gain(*pair, manner.normalise) for pair in zip(peaks, loudness, strict=True))
    return Measured(frames, gains, energy / expected if expected else 1.0)


class Checked:
    """Reads the files of a folder through, skips those that cannot be read, and counts what is found in them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skipped, self.found = Tally(), Tally()

    def skip(self, file: Path, why: str) -> None:
        """Count a file that is not used."""
        self.skipped.add(f"skipped ({why})", name_below(self.path, file))

    @contextmanager
    def attempt(self, file: Path, why: str | None = None) -> Iterator[None]:
        """While a file is read: what is wrong with a file of a folder skips it; of a single file it is the error.

        Any error counts where `why` says what it means, else those that say so themselves.
        """
        try:
            yield
        except VqtoolError as error:
            why = why or getattr(error, "kind", None)
            if not self.path.is_dir() or not why:
                raise
            self.skip(file, why)

    def infos(self, files: Iterable[Path]) -> dict[Path, audio.Info]:
        """What the headers say, and what is odd about them; files of other formats of sound count as skipped."""
        found = {}
        for file in _files_of(self.path) if self.path.is_dir() else ():
            if file.suffix.lower() in audio.FOREIGN:
                self.skip(file, audio.foreign(file))
        for file in files:
            with self.attempt(file):
                found[file] = audio.info(file)
                self._note_header(file, found[file])
        return found

    def _note_header(self, file: Path, info: audio.Info) -> None:
        name = name_below(self.path, file)
        if info.missing:
            self.cut_short(file, f"{info.missing} bytes are missing after {info.frames} samples")
        if info.unfinished:
            self.found.add("read to the end, though the header says that there is nothing", name)
        if info.uncounted:
            self.found.add(
                "read as far as the header says, with more bytes after that", name, f"{info.uncounted} bytes"
            )

    def cut_short(self, file: Path, detail: str) -> None:
        """Count a file whose header promises more than there is."""
        self.found.add("cut short (the header promises more)", name_below(self.path, file), detail)

    def note(self, file: Path, info: audio.Info, whole: Measured) -> None:
        """Count what was found when a file was read through."""
        name = name_below(self.path, file)
        if whole.frames < info.frames and not info.missing:
            self.cut_short(file, f"{info.frames - whole.frames} samples are missing after {whole.frames}")
        if whole.kept < CANCELS:
            below = f"the mix is {-10 * math.log10(max(whole.kept, 1e-12)):.0f} dB too soft"
            self.found.add("mixed from channels that cancel (-s data.mix=first takes the first one)", name, below)
        elif all(map(math.isinf, whole.gains)):
            self.found.add("silent", name)

    def read(self, files: Iterable[Path], manner: Manner) -> Iterator[tuple[Path, audio.Info, Measured | None]]:
        """Each file that can be read, with its true length; all is read but what is beyond `READ_FIRST` samples."""
        infos, done = self.infos(files), 0
        for file, info in infos.items():
            done += info.frames * info.channels
            if done > READ_FIRST:
                yield file, info, None
                continue
            with self.attempt(file), progress_of(info.frames, f"measure {file.name}") as bar:
                whole = measured(file, manner, bar.advance)
                self.note(file, info, whole)
                yield file, replace(info, frames=min(info.frames, whole.frames)), whole


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
        raise missing_file(path, what="file or folder")
    files = _files_of(path)
    found = [p for p in files if p.suffix.lower() in audio.SUFFIXES]
    if not found:
        kinds = f"files that end in {', '.join(audio.SUFFIXES)} are taken"
        others = [p for p in files if p.suffix.lower() in audio.FOREIGN]
        hint = f"{len(others)} of {audio.foreign(others[0])}" if others else kinds
        raise VqtoolError(f"there are no audio files in `{path}` that can be read", hint=hint)
    return found


def _files_of(path: Path) -> list[Path]:
    """All files below a folder by name, but those that systems hide beside sounds (`._a.wav`)."""
    return sorted(p for p in path.rglob("*") if not p.name.startswith("._") and p.is_file())


def name_below(path: Path, file: Path) -> str:
    """The name of a file of a folder, with the folders in between."""
    return file.relative_to(path).as_posix() if path.is_dir() else file.name


def manner_of(spec: DataSpec) -> Manner:
    """How the model's data were read."""
    return Manner(int(spec.sample_rate or 0), spec.metadata["mix"], spec.metadata["normalise"])


def changes(path: Path, infos: Mapping[Path, audio.Info], manner: Manner) -> Tally:
    """What happens to the files on the way."""
    made = Tally()
    for file, info in infos.items():
        if info.rate != manner.rate:
            what = f"resampled to {manner.rate} Hz, and back in the end"
            made.add(what, name_below(path, file), f"from {info.rate} Hz")
        if info.channels > 1 and manner.mix != "each":
            how = "mixed to one channel" if manner.mix == "mean" else "read by the first channel alone"
            made.add(how, name_below(path, file), f"of {info.channels}")
    return made
