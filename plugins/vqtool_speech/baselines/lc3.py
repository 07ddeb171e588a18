"""LC3, the codec of Bluetooth LE Audio: `elc3 -b 16000 -m 10`, 16 kbit/s in frames of 10 ms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Interval

from vqtool.api import DataSpec
from vqtool_speech import audio
from vqtool_speech.programs import ProgramCodec, Wave, read, write

RATES = (8_000, 16_000, 24_000, 32_000, 48_000)  # Hz that it takes
HEADER = 18  # bytes of its file; each frame has two more for its size


class Lc3(ProgramCodec):
    """The programs of liblc3; the sound is resampled to the next rate that it takes."""

    programs = ("elc3", "dlc3")
    package = "liblc3-tools"

    def __init__(
        self, spec: DataSpec, *, kbps: Annotated[int, Interval(ge=16, le=320), Doc("rate of each channel")] = 16
    ) -> None:
        super().__init__(spec)
        self.kbps = kbps
        self.own = next((rate for rate in RATES if rate >= self.rate), RATES[-1])

    def code(self, wave: Wave, folder: Path) -> tuple[Wave, int, int]:
        fits = audio.resample(wave[:, None], self.rate, self.own)[:, 0]
        given, coded, back = write(fits, folder / "in.wav", self.own), folder / "coded.lc3", folder / "back.wav"
        self.run("elc3", "-b", str(self.kbps * 1000), "-m", "10", given, coded)
        self.run("dlc3", coded, back)
        size = coded.stat().st_size
        frame = self.kbps * 10 // 8  # bytes
        return read(back, self.rate), size, (size - HEADER) * frame // (frame + 2)
