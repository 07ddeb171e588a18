"""Audio files of any rate and number of channels: random stretches to train on, whole clips to be judged by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval

from vqtool.api import MASK, Batch, Data, DataSpec, Field, Rows
from vqtool.errors import VqtoolError
from vqtool_speech.audio import Mix
from vqtool_speech.clips import Checked, Clips, Manner, Normalise, audio_files
from vqtool_speech.user_file import AudioFiles

FEW = 3  # clips of a split under which a note is made


class Wav(Data):
    """Clips are the files by name. Every `held_out`-th is the split `test`, every `valid`-th of the rest `valid`; of
    fewer clips than that the last one.

    A training row is a stretch of `segment` samples at a random place; a row of the other splits is a whole clip (or a
    piece of one longer than `longest` seconds), `samples` long, with zeros after it up to the longest of its batch.
    `clip` is the number of a row's clip, `gain` what its file was multiplied by. With `shortest`, rows have a `mask`
    that leaves these zeros out, in training too: a clip shorter than a segment is a shorter row. Files are read as they
    are needed;
    what was read last stays in memory, up to `cache_mb`. A file of a folder that cannot be read is skipped with a note.
    """

    splits = ("train", "valid", "test")
    files = AudioFiles

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("a folder of audio files, searched to the bottom, or one file")],
        sample_rate: Annotated[int, Ge(1000), Doc("Hz of the codec; files at other rates are resampled")] = 16_000,
        segment: Annotated[int, Gt(0), Doc("samples of a training row")] = 16_000,
        mix: Annotated[Mix, Doc("channels of a file: their mean, the first, or each a clip of its own")] = "mean",
        normalise: Annotated[
            Normalise, Doc("a clip's level: peak at 0.95, EBU R 128 at -23 LUFS, or as it is; the gain is kept")
        ] = "peak",
        held_out: Annotated[int, Ge(2), Doc("every n-th clip is held out for the test")] = 5,
        valid: Annotated[int, Ge(2), Doc("every n-th clip of the rest is for validation")] = 10,
        shortest: Annotated[
            Annotated[int, Gt(0)] | None,
            Doc(
                "clips shorter than a segment keep their length, from so many samples on, with a mask; left out: zeros"
            ),
        ] = None,
        flip: Annotated[float, Interval(ge=0, le=1), Doc("probability of negating a training row")] = 0.5,
        vary_db: Annotated[float, Ge(0), Doc("training rows get a random gain between plus and minus this")] = 0.0,
        longest: Annotated[float, Gt(0), Doc("seconds: longer clips are judged in pieces")] = 20.0,
        cache_mb: Annotated[float, Ge(0), Doc("memory for clips that were read, in MiB")] = 256.0,
    ) -> None:
        self.segment, self.flip, self.vary_db = segment, flip, vary_db
        manner = Manner(sample_rate, mix, normalise)
        checked = Checked(path)
        self.clips = Clips(audio_files(path), manner, cache_mb=cache_mb, checked=checked)
        left_out = checked.skipped.sentences()
        if len(self.clips) < len(self.splits):
            raise VqtoolError(
                f"`{path}` holds {len(self.clips)} clips; at least 3 are needed, to train, validate and test",
                hint="; ".join([*left_out, "add files, or cut a long one into several"]),
            )
        usable = [k for k in range(len(self.clips)) if self.clips.samples(k) >= (shortest or 0)]
        if len(usable) < len(self.clips):
            left_out = [*left_out, f"{len(self.clips) - len(usable)} clips are shorter than {shortest} samples"]
        if len(usable) < len(self.splits):
            raise VqtoolError(f"`{path}` holds {len(usable)} clips of {shortest} samples or more, of {len(self.clips)}",
                              hint="a smaller `shortest`")  # fmt: skip
        rest, test = split_every(usable, held_out)
        train, validation = split_every(rest, valid)
        of = {"train": train, "valid": validation, "test": test}
        piece = max(segment, int(longest * sample_rate) // segment * segment)
        self._rows: dict[str, Rows] = {
            name: Stretches(self.clips, of[name], piece, pad_to=segment, mask=shortest is not None)
            for name in ("valid", "test")
        }
        self._rows["train"] = Stretches(self.clips, of["train"], segment, more=segment, mask=shortest is not None)
        self.notes = (*left_out, *checked.found.sentences(), *_notes(self.clips, of))
        fields = {"x": Field((1, segment), "signal"), "clip": Field(()), "samples": Field(()), "gain": Field(())}
        if shortest is not None:
            fields[MASK] = Field((segment,), "mask")
        about: dict[str, Any] = {"mix": mix, "normalise": normalise}
        self.spec = DataSpec(fields, sample_rate=float(sample_rate), metadata=about)

    def rows(self, split: str) -> Rows:
        """The rows of a split."""
        return self._rows[split]

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """A stretch of `segment` samples at a random place of each row, negated at times, louder or softer."""
        x = batch["x"]
        n, spare = x.shape[0], x.shape[-1] - self.segment
        start = torch.randint(spare + 1, (n,), generator=generator)
        if MASK in batch:  # a clip that has no more is taken from its beginning
            start = start % ((batch[MASK].sum(1).cpu() - self.segment).clamp_min(0) + 1)
        sign = 1 - 2 * (torch.rand(n, generator=generator) < self.flip).float()
        gain = sign * 10 ** (self.vary_db / 20 * (2 * torch.rand(n, generator=generator) - 1))
        at = (start[:, None] + torch.arange(self.segment))[:, None].to(x.device)
        batch = batch | {"x": x.gather(-1, at) * gain.to(x.device)[:, None, None]}
        return batch | {MASK: batch[MASK].gather(1, at[:, 0])} if MASK in batch else batch


class Stretches:
    """Rows that tile clips: row r holds `frames` samples from the multiple of it that it stands for, and `more` after
    (with `more`, the last rows of a clip are moved back to hold no zeros where it is long enough).

    With `pad_to`, rows are no longer than needed: the longest of a batch, up to a multiple of `pad_to`. With `mask`,
    a field says which samples a row has.
    """

    def __init__(
        self, clips: Clips, of: list[int], frames: int, *, more: int = 0, pad_to: int = 0, mask: bool = False
    ) -> None:
        self.clips, self.of, self.frames, self.more, self.pad_to, self.mask = clips, of, frames, more, pad_to, mask
        self.ends = np.cumsum([max(1, -(-clips.samples(k) // frames)) for k in of])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Batch:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> Batch:
        places = [self._place(index) for index in indices]
        samples = [min(self.frames, self.clips.samples(clip) - start) for clip, start in places]
        length = self.frames + self.more
        if self.pad_to:
            length = -(-max(samples) // self.pad_to) * self.pad_to
        x = np.stack([self.clips.stretch(clip, start, length) for clip, start in places])
        batch = {
            "x": torch.from_numpy(x)[:, None],
            "clip": torch.tensor([clip for clip, _ in places]),
            "samples": torch.tensor(samples),
            "gain": torch.tensor([self.clips.gain(clip) for clip, _ in places], dtype=torch.float32),
        }
        if self.mask:
            most = self.frames + self.more
            real = [min(most, self.clips.samples(clip) - start) for clip, start in places]
            batch[MASK] = torch.arange(length) < torch.tensor(real)[:, None]
        return batch

    def _place(self, row: int) -> tuple[int, int]:
        """The clip and the first sample of a row."""
        which = int(np.searchsorted(self.ends, row, side="right"))
        before = int(self.ends[which - 1]) if which else 0
        start, spare = (row - before) * self.frames, self.clips.samples(self.of[which]) - self.frames - self.more
        return self.of[which], min(start, max(0, spare)) if self.more else start


def split_every(clips: list[int], every: int) -> tuple[list[int], list[int]]:
    """`clips` without every `every`-th, and these; of fewer clips the last one counts as that."""
    every = min(every, len(clips))
    return [k for i, k in enumerate(clips) if (i + 1) % every], clips[every - 1 :: every]


def _notes(clips: Clips, of: Mapping[str, list[int]]) -> tuple[str, ...]:
    """What happens to the files on the way, in sentences."""
    rates = sorted({clip.info.rate for clip in clips.clips} - {clips.manner.rate})
    notes = []
    if rates:
        others = sum(clip.info.rate != clips.manner.rate for clip in clips.clips)
        shown = ", ".join(f"{rate}" for rate in rates)
        notes.append(f"{others} of {len(clips)} clips are resampled to {clips.manner.rate} Hz from {shown} Hz")
    many = sum(clip.info.channels > 1 for clip in clips.clips)
    if many and clips.manner.mix != "each":
        how = "mixed to one channel" if clips.manner.mix == "mean" else "read by their first channel"
        notes.append(f"{many} of {len(clips)} clips have several channels: they are {how}")
    few = {name: len(of[name]) for name in ("valid", "test")}
    if min(few.values()) < FEW:
        shown = f"{few['test']} for the test and {few['valid']} to validate"
        notes.append(f"of {len(clips)} clips there are {shown}: their metrics mean little")
    return tuple(notes)
