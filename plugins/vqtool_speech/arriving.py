"""Sound that is read while it comes, and written while it is made: through pipes, where nobody knows how long it is."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import Source
from vqtool_speech import audio
from vqtool_speech.clips import Manner
from vqtool_speech.vqc import samples_at
from vqtool_speech.vqc_stream import StreamedCodes

STDIN = Path("stdin")
ENDLESS = 2**32 - 1  # bytes: who does not know the length says that it is this
HEADER = 2**20  # bytes before the samples, more than which nobody has
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # formats of a .wav


@dataclass(frozen=True, slots=True)
class Form:
    """What samples are."""

    rate: int  # Hz
    channels: int
    width: int = 2  # bytes of a sample
    floats: bool = False
    size: int | None = None  # bytes of all samples, where that is known

    def sound(self, content: bytes) -> audio.Sound:
        """Whole frames as numbers of which 1 is full scale."""
        flat: NDArray[np.float32]
        if self.floats:
            flat = np.frombuffer(content, f"<f{self.width}").astype(np.float32)
        elif self.width == 1:
            flat = (np.frombuffer(content, np.uint8).astype(np.float32) - 128) / np.float32(128)
        else:
            wide = np.zeros((len(content) // self.width, 4), np.uint8)  # the highest bytes of 32 bits
            wide[:, 4 - self.width :] = np.frombuffer(content, np.uint8).reshape(-1, self.width)
            flat = (wide.view("<i4")[:, 0] / 2**31).astype(np.float32)
        return flat.reshape(-1, self.channels)


@dataclass
class Sound:
    """A sound on its way, and how long it was once its end has come."""

    source_rate: int
    channels: int  # of its codes
    length: int | None = None


def form_of(source: Source) -> Form | None:
    """What the header of a .wav says, which is then read; None, and nothing is, of anything but plain samples."""
    if (head := source.peek(12))[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    at, form = 12, None
    while at < HEADER and len(head := source.peek(at + 8)) == at + 8:
        name, size = head[at : at + 4], int.from_bytes(head[at + 4 :], "little")
        at += 8
        if name == b"data":
            if form is not None:
                source.read(at)
                known = 0 < size < audio.UNKNOWN
                return Form(form.rate, form.channels, form.width, form.floats, size if known else None)
            return None
        if name == b"fmt ":
            form = _form(source.peek(at + min(size, 40))[at:])
        at += size + size % 2
    return None


def _form(content: bytes) -> Form | None:
    """The form of samples that are plain numbers."""
    if len(content) < 16:
        return None
    kind, channels, rate, _, frame, _ = struct.unpack_from("<HHIIHH", content)
    if kind == EXTENSIBLE and len(content) == 40:
        kind = int.from_bytes(content[24:26], "little")
    width = frame // channels if channels else 0
    plain = (kind == PCM and width in (1, 2, 3, 4)) or (kind == FLOAT and width in (4, 8))
    if not plain or frame != width * channels or not audio.RATES[0] <= rate <= audio.RATES[1]:
        return None
    return Form(rate, channels, width, kind == FLOAT)


def sound_from(source: Source, form: Form, cut: Callable[[int], None]) -> Iterator[audio.Sound]:
    """The frames [n, channels] as they come; `cut` hears how many bytes of those that were promised did not."""
    frame, left, held = form.width * form.channels, form.size, b""
    while (left is None or left > 0) and (came := source.some(left)):
        left = None if left is None else left - len(came)
        held += came
        whole = len(held) // frame * frame
        if whole:
            yield audio.finite(form.sound(held[:whole]), STDIN)
        held = held[whole:]
    if left:
        cut(left)
    while source.some():  # what a file has behind its samples
        pass


def chunks_of(frames: Iterator[audio.Sound], sound: Sound, manner: Manner) -> Iterator[Tensor]:
    """Chunks [channels, 1, n] at the codec's rate; `sound` has its length after the last one."""
    length = made = 0

    def counted() -> Iterator[audio.Sound]:
        nonlocal length
        for block in frames:
            length += len(block)
            yield audio.mixed(block, manner.mix)

    for block in audio.resampled(counted(), sound.channels, sound.source_rate, manner.rate):
        made += len(block)
        if len(block):
            yield torch.from_numpy(np.ascontiguousarray(block.T))[:, None]
    if not length:
        raise audio.UnreadableError(f"`{STDIN}` holds no sound", kind="no sound in it", hint="see what wrote it")
    missing = samples_at(length, sound.source_rate, manner.rate) - made
    if missing > 0:  # a last sample that the resampler rounded away
        yield torch.zeros(sound.channels, 1, missing)
    sound.length = length


def frames_of(chunks: Iterator[Tensor], codes: StreamedCodes) -> Iterator[audio.Sound]:
    """Frames [n, channels] at the source's rate of decoded chunks [channels, 1, n], cut where it ended."""
    made = 0
    blocks = (chunk[:, 0].numpy().T for chunk in chunks)
    for block in audio.resampled(blocks, codes.channels, codes.rate, codes.source_rate):
        left = None if codes.length is None else codes.length - made
        made += len(block)
        yield block[:left]


@contextmanager
def written_at_once(target: BinaryIO, rate: int, channels: int, *, raw: bool) -> Iterator[audio.Writer]:
    """A .wav, or bare samples, through a pipe: each block is sent on. A file behind it gets its sizes in the end."""
    start = 0 if raw else _place(target)
    if not raw:
        target.write(wav_header(rate, channels))
    sink = _Sink(target)
    yield audio.Writer(sink, whole=True)
    if start is not None and not raw and sink.size < audio.WAV_BYTES:
        for at, size in ((4, 36 + sink.size), (40, sink.size)):
            target.seek(start + at)
            target.write(size.to_bytes(4, "little"))
        target.seek(0, 2)
        target.flush()


def _place(target: BinaryIO) -> int | None:
    """Where in a file the next byte goes; None where that cannot be chosen, as behind `>>`."""
    try:
        import fcntl

        appends = fcntl.fcntl(target.fileno(), fcntl.F_GETFL) & os.O_APPEND
        return None if appends or not target.seekable() else target.tell()
    except (ImportError, OSError):
        return None


class _Sink:
    """Samples to bytes, at once."""

    def __init__(self, target: BinaryIO) -> None:
        self.target, self.size = target, 0

    def write(self, samples: NDArray[np.int16]) -> None:
        content = samples.astype("<i2").tobytes()
        self.target.write(content)
        self.target.flush()
        self.size += len(content)


def wav_header(rate: int, channels: int) -> bytes:
    """The header of a .wav of 16 bits whose length is not known."""
    frame = 2 * channels
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", ENDLESS, b"WAVE", b"fmt ", 16, PCM, channels, rate, rate * frame,
                       frame, 16, b"data", ENDLESS)  # fmt: skip
