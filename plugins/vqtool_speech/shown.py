"""What `vqtool show` says of a .vqc file or stream; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from vqtool_speech.vqc import BY_USE, COUNTED, header_of
from vqtool_speech.vqc_stream import header_from, is_stream, moments_from


class OpenFile:
    """An open file as a `Source`."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, count: int) -> bytes:
        """The next `count` bytes."""
        return self.file.read(count)

    def peek(self, count: int) -> bytes:
        """The next `count` bytes, which are read again."""
        came = self.file.read(count)
        self.file.seek(-len(came), 1)
        return came

    def some(self, most: int | None = None) -> bytes:
        """What is left, `most` bytes of it."""
        return self.file.read(most if most is not None else -1)


def what_is_in(path: Path) -> dict[str, Any]:
    """What a .vqc holds; rates in Hz, `bitrate`s as `vqtool encode` reports them.

    Raises:
        VqtoolError: it is damaged, or of a version that is not known.
    """
    with path.open("rb") as file:
        return of_stream(file, path) if is_stream(path) else of_file(file, path)


def of_file(file: BinaryIO, path: Path) -> dict[str, Any]:
    """Of a file whose length is known from its header."""
    header = header_of(file, str(path))
    file.seek(4)
    coding = file.read(1)[0]
    form = [
        "range-coded by use" if coding & BY_USE else "as bits",
        "each token sends its last levels" if coding & COUNTED else "each token sends all levels",
    ]
    bitrates = rates(path.stat().st_size, header.frame, header.seconds)
    return facts(f".vqc file, version 2: codes {', '.join(form)}", header, header.seconds, header.channels) | bitrates


def of_stream(file: BinaryIO, path: Path) -> dict[str, Any]:
    """Of a stream, which is read to its end: that says how long it is."""
    source, cut = OpenFile(file), []
    header = header_from(source, str(path))
    moments = sum(1 for _ in moments_from(source, header, str(path), lambda: cut.append("its end is missing")))
    length, rate = header.length, header.source_rate
    if length is None:
        length, rate = moments * header.stride * header.bands, header.rate
    frame = len(header.packed()) + (0 if cut else 13)
    form = "; ".join([".vqc stream, version 3: codes as bits", *cut])
    return facts(form, header, length / rate, header.channels) | rates(path.stat().st_size, frame, length / rate)


def facts(form: str, header: Any, seconds: float, channels: int) -> dict[str, Any]:
    """What the headers of both have."""
    return {
        "format": form,
        "model": header.model,
        "seconds": seconds,
        "sample_rate": header.source_rate,
        "codec_rate": header.rate,
        "channels": channels,
        "levels": len(header.bits),
        "code_bits": list(header.bits),
    }


def rates(size: int, frame: int, seconds: float) -> dict[str, float]:
    """Kilobits a second: of the whole file, and without its `frame`, the header and what ends it."""
    if not seconds:
        return {}
    return {"bitrate.kbps": size * 8 / seconds / 1000, "bitrate.payload_kbps": (size - frame) * 8 / seconds / 1000}
