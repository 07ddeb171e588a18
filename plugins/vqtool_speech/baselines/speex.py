"""Speex, wideband: `speexenc --wideband --quality 4`, about 14 kbit/s."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Interval

from vqtool.api import DataSpec
from vqtool_speech import audio
from vqtool_speech.baselines.opus import payload
from vqtool_speech.programs import ProgramCodec, Wave, read, write

RATE = 16_000  # Hz of its wide band


class Speex(ProgramCodec):
    """The program of Xiph, which Opus has followed, at 16 kHz."""

    programs = ("speexenc", "speexdec")
    package = "speex"

    def __init__(
        self, spec: DataSpec, *, quality: Annotated[int, Interval(ge=0, le=10), Doc("0 to 10, best")] = 4
    ) -> None:
        super().__init__(spec)
        self.quality = quality

    def code(self, wave: Wave, folder: Path) -> tuple[Wave, int, int]:
        wide = audio.resample(wave[:, None], self.rate, RATE)[:, 0]
        given, coded, back = write(wide, folder / "in.wav", RATE), folder / "coded.spx", folder / "back.wav"
        self.run("speexenc", "--wideband", "--quality", str(self.quality), given, coded)
        self.run("speexdec", coded, back)
        return read(back, self.rate), coded.stat().st_size, payload(coded.read_bytes())
