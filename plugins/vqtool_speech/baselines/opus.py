"""Opus for speech: `opusenc --bitrate 12 --vbr --speech`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Interval

from vqtool.api import DataSpec
from vqtool_speech.programs import ProgramCodec, Wave, read, write


class Opus(ProgramCodec):
    """The program of Xiph (RFC 6716), at a variable rate, in frames of 20 ms."""

    programs = ("opusenc", "opusdec")
    package = "opus-tools"

    def __init__(
        self, spec: DataSpec, *,
        kbps: Annotated[int, Interval(ge=6, le=256), Doc("rate of each channel that the encoder aims at")] = 12,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.kbps = kbps

    def code(self, wave: Wave, folder: Path) -> tuple[Wave, int, int]:
        given, coded, back = write(wave, folder / "in.wav", self.rate), folder / "coded.opus", folder / "back.wav"
        self.run(
            "opusenc", "--quiet", "--bitrate", str(self.kbps), "--framesize", "20", "--speech", "--vbr", given, coded
        )
        self.run("opusdec", "--quiet", "--rate", str(self.rate), coded, back)
        return read(back, self.rate), coded.stat().st_size, payload(coded.read_bytes())


def payload(ogg: bytes) -> int:
    """The bytes of the audio packets of an Ogg file (RFC 3533): all but page headers and the two packets of headers."""
    at, packets = 0, [0]
    while ogg[at : at + 4] == b"OggS":
        lacing = ogg[at + 27 : at + 27 + ogg[at + 26]]
        for size in lacing:
            packets[-1] += size
            if size < 255:
                packets.append(0)
        at += 27 + len(lacing) + sum(lacing)
    return sum(packets[2:])
