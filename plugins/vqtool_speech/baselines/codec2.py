"""Codec 2 at 3.2 kbit/s, for radio: `c2enc 3200`, at 8 kHz."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_doc import Doc

from vqtool.api import DataSpec
from vqtool_speech import audio
from vqtool_speech.programs import ProgramCodec, Wave

RATE = 8_000  # Hz


class Codec2(ProgramCodec):
    """The programs of Codec 2, on raw samples of 16 bits at 8 kHz: what lies above 4 kHz is lost."""

    programs = ("c2enc", "c2dec")
    package = "codec2"

    def __init__(
        self, spec: DataSpec, *,
        mode: Annotated[Literal["3200", "2400", "1600", "1400", "1300", "1200"], Doc("bits per second")] = "3200",
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.mode = mode

    def code(self, wave: Wave, folder: Path) -> tuple[Wave, int, int]:
        given, coded, back = folder / "in.raw", folder / "coded.c2", folder / "back.raw"
        narrow = audio.resample(wave[:, None], self.rate, RATE)[:, 0]
        np.clip(np.rint(narrow * 2**15), -(2**15), 2**15 - 1).astype("<i2").tofile(given)
        self.run("c2enc", self.mode, given, coded)
        self.run("c2dec", self.mode, coded, back)
        decoded = np.fromfile(back, "<i2").astype(np.float32) / np.float32(2**15)
        size = coded.stat().st_size
        return audio.resample(decoded[:, None], RATE, self.rate)[:, 0], size, size
