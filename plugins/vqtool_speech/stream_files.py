"""Sound to a .vqc stream and back while it comes, for the codecs that see no later sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor, from_numpy

from vqtool.api import Arriving, Files, Source
from vqtool.errors import VqtoolError
from vqtool_speech import audio
from vqtool_speech.arriving import (
    STDIN,
    Form,
    Sound,
    chunks_of,
    form_of,
    frames_of,
    sound_from,
    wav_header,
    written_at_once,
)  # fmt: skip
from vqtool_speech.clips import Checked, changes, manner_of
from vqtool_speech.vqc import damaged, widths
from vqtool_speech.vqc_stream import STREAM, StreamedCodes, StreamWriter, header_from, moments_from

CHANNELS = 255  # of a .vqc file


class StreamFiles(Files):
    """What `AudioFiles` does with pipes. The level of a sound is not measured, for nobody knows what is to come."""

    _checked: Checked | None = None

    def raw_header(self, rate: int) -> bytes:
        """The header of a .wav of one channel that does not know its length."""
        return wav_header(rate, 1)

    def arriving(self, source: Source, raw: int | None) -> tuple[Sound, Iterator[Tensor]] | None:
        """A .wav of plain samples, or these alone."""
        if raw is not None and not audio.RATES[0] <= raw <= audio.RATES[1]:
            raise VqtoolError(f"{raw} Hz is not a sample rate between {audio.RATES[0]} and {audio.RATES[1]}",
                              where="--raw")  # fmt: skip
        form = form_of(source) if raw is None else Form(raw, 1)
        if form is None:
            return None
        manner = manner_of(self.spec)
        sound = Sound(form.rate, form.channels if manner.mix == "each" else 1)
        if sound.channels > CHANNELS:
            raise VqtoolError(f"`{STDIN}` has {sound.channels} channels, and a .vqc stream holds {CHANNELS}",
                              hint="-s data.mix=mean mixes them")  # fmt: skip
        self._checked = checked = Checked(STDIN)
        checked.found = changes(STDIN, {STDIN: audio.Info(form.rate, 0, form.channels)}, manner)
        frames = sound_from(source, form, lambda left: checked.cut_short(STDIN, f"{left} bytes are missing"))
        return sound, chunks_of(frames, sound, manner)

    def write_arriving_codes(
        self, target: BinaryIO, signal: Arriving, codes: Iterator[Tensor], model: Mapping[str, Any]
    ) -> dict[str, float]:
        """A .vqc stream; its header comes with the first codes."""
        assert isinstance(signal, Sound)
        writer: StreamWriter | None = None
        for some in codes:
            if writer is None:
                rate, bits = int(self.spec.sample_rate or 0), widths(model["codebook_sizes"], some)
                writer = StreamWriter(target, StreamedCodes(
                    rate, signal.source_rate, len(some), bits, model["stride"], int(model["bands"]), model["model"]
                ))  # fmt: skip
            if signal.length is None:
                writer.add(some.numpy())
            else:
                writer.finish(signal.length, some.numpy())
        assert writer is not None
        assert signal.length is not None
        seconds = signal.length / signal.source_rate
        per_second = 8 / seconds / 1000
        return {"bitrate.kbps": writer.size * per_second,
                "bitrate.payload_kbps": (writer.size - writer.frame) * per_second, "seconds": seconds}  # fmt: skip

    def arriving_codes(
        self, source: Source, model: Mapping[str, Any]
    ) -> tuple[str, StreamedCodes, Iterator[Tensor]] | None:
        """The codes of a .vqc stream. One that was cut gives those that came, and counts as skipped."""
        if source.peek(len(STREAM)) != STREAM:
            return None
        where = str(STDIN)
        header, sizes = header_from(source, where), model["codebook_sizes"]
        self._checked = checked = Checked(STDIN)
        if header.model == model["model"] and (
            len(header.bits) > len(sizes) or header.bits != widths(sizes, np.zeros(len(header.bits)))
            or (header.rate, header.bands, header.stride) != (self.spec.sample_rate, model["bands"], model["stride"])
        ):  # fmt: skip
            raise damaged(where, "its header does not fit the model's codes")
        moments = moments_from(source, header, where, lambda: checked.skip(STDIN, "the end of its codes is missing"))
        return header.model, header, (from_numpy(codes) for codes in moments)

    def write_arriving(
        self, target: Path | BinaryIO, signal: Arriving, chunks: Iterator[Tensor], *, raw: bool = False
    ) -> None:
        """Sound of 16 bits at the rate of the source: a .wav, or samples alone, or what the name of a file asks for."""
        assert isinstance(signal, StreamedCodes)
        rate, channels = signal.source_rate, signal.channels
        frames = frames_of(chunks, signal)
        writing = (
            audio.written(target, rate, channels, frames=0) if isinstance(target, Path)
            else written_at_once(target, rate, channels, raw=raw)
        )  # fmt: skip
        with writing as writer:
            for block in frames:
                writer.write(block)
