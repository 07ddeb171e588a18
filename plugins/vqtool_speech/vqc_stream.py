"""The .vqc stream: codes of a sound whose end is not known yet, written and read one moment at a time.

Version 3, little-endian. A moment is the tokens that are coded together, the shortest that a codec waits for:

    offset  type  what
    0       3s    "VQC"
    3       u8    version, 3
    4       u8    channels
    5       u8    levels
    6       u8    tokens of a moment ("bands")
    7       u8    0
    8       u16   samples per token
    10      u32   sample rate of the codec, Hz
    14      u32   sample rate of the source, Hz
    18      8s    digest of the model
    26      u8    for each level, bits of a code
    ...     u32   CRC-32 of everything before
then for each moment
            u8    1 + n % 127, where n is the CRC-32 of the header (with its own) and of the codes of all moments up to
                  this one; 127 more where not all of its tokens send all levels
            ...   the codes [channels, tokens, levels] as bits, highest first, filled up with zeros to a byte; where not
                  all are sent, the numbers of levels [channels, tokens] first, in as many bits as that of all needs
and in the end
            u8    0
            u64   length of the source in its own samples
            ...   where that does not end with a moment: the last one, as above
            u32   n as above, after the 8 bytes of the length
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from vqtool_speech.spool import Numbers, are_levels
from vqtool_speech.vqc import LONGEST, MAGIC, RATES, damaged, from_bits, samples_at, to_bits

if TYPE_CHECKING:  # it would import torch, which `vqtool show` does without
    from vqtool.api import Source

STREAM = MAGIC + b"\x03"
HEADER = struct.Struct("<4s4BHII8s")
MARKS = 127


@dataclass
class StreamedCodes:
    """What a stream says about its codes, and how long its source was once its end has come."""

    rate: int  # Hz, of the codec
    source_rate: int  # Hz
    channels: int
    bits: tuple[int, ...]  # of a code of each level
    stride: int  # samples per token, at the codec's rate
    bands: int  # tokens of a moment
    model: str  # 16 hex digits
    length: int | None = None  # samples of the source, at its own rate

    def packed(self) -> bytes:
        """The header."""
        head = HEADER.pack(STREAM, self.channels, len(self.bits), self.bands, 0, self.stride, self.rate,
                           self.source_rate, bytes.fromhex(self.model)) + bytes(self.bits)  # fmt: skip
        return head + struct.pack("<I", zlib.crc32(head))


class StreamWriter:
    """Writes a stream, and sends every moment on at once."""

    def __init__(self, target: BinaryIO, header: StreamedCodes) -> None:
        self.target, self.header = target, header
        head = header.packed()
        self.check, self.size, self.frame = zlib.crc32(head), 0, len(head) + 13
        self._send(head)

    def add(self, codes: Numbers) -> None:
        """Whole moments [channels, tokens, levels], -1 for levels that are not sent."""
        bands = self.header.bands
        self._send(b"".join(self._moment(codes[:, at : at + bands]) for at in range(0, codes.shape[1], bands)))

    def finish(self, length: int, codes: Numbers) -> None:
        """The end, with the moment that the source does not fill, if any."""
        end = struct.pack("<Q", length)
        self.check = zlib.crc32(end, self.check)
        last = self._moment(codes) if codes.shape[1] else b""
        self._send(b"\0" + end + last + struct.pack("<I", self.check))

    def _moment(self, codes: Numbers) -> bytes:
        counts = (codes >= 0).sum(-1)
        levels = len(self.header.bits)
        if not are_levels(codes):
            raise ValueError("a code that is not sent follows one that is")
        whole = bool((counts == levels).all())
        parts = [] if whole else [to_bits(counts.ravel(), levels.bit_length())]
        for token in codes.reshape(-1, levels):
            parts += [
                to_bits(code[None], bits) for code, bits in zip(token, self.header.bits, strict=True) if code >= 0
            ]
        payload = np.packbits(np.concatenate(parts)).tobytes()
        self.check = zlib.crc32(payload, self.check)
        return bytes([1 + self.check % MARKS + (0 if whole else MARKS)]) + payload

    def _send(self, content: bytes) -> None:
        if content:
            self.target.write(content)
            self.target.flush()
            self.size += len(content)


def header_from(source: Source, where: str) -> StreamedCodes:
    """The header of a stream, whose first bytes are `STREAM`."""
    head = source.read(HEADER.size)
    bits = source.read(head[5]) if len(head) == HEADER.size else b""
    if source.read(4) != struct.pack("<I", zlib.crc32(head + bits)):
        raise damaged(where, "the checksum of its header does not fit")
    _, channels, levels, bands, none, stride, rate, source_rate, model = HEADER.unpack(head)
    rates = all(RATES[0] <= one <= RATES[1] for one in (rate, source_rate))
    if none or not (channels and levels and bands and stride and rates and all(0 < b <= 32 for b in bits)):
        raise damaged(where, "its header makes no sense")
    return StreamedCodes(rate, source_rate, channels, tuple(bits), stride, bands, model.hex())


def moments_from(source: Source, header: StreamedCodes, where: str, cut: Callable[[], None]) -> Iterator[Numbers]:
    """The moments [channels, bands, levels] after the header; `header.length` is there when the last one comes.

    `cut` is called where the bytes end before the stream does. Raises VqtoolError where one of them is wrong.
    """
    check, done, last = zlib.crc32(header.packed()), 0, None
    try:
        while mark := _bytes(source, 1)[0]:
            check, codes = _moment(source, header, check, mark, where)
            done += 1
            yield codes
        end = _bytes(source, 8)
        check = zlib.crc32(end, check)
        (length,) = struct.unpack("<Q", end)
        samples = samples_at(length, header.source_rate, header.rate)
        left = -(-samples // (header.stride * header.bands)) - done
        if not 0 < length <= LONGEST or left not in (0, 1):
            raise damaged(where, f"a length of {length} samples does not fit its codes")
        if left:
            check, last = _moment(source, header, check, _bytes(source, 1)[0], where)
        if _bytes(source, 4) != struct.pack("<I", check):
            raise damaged(where, "its checksum does not fit")
    except EOFError:
        cut()
        return
    header.length = length
    if last is not None:
        yield last
    if source.peek(1):
        raise damaged(where, "there is more after its end")


def _moment(source: Source, header: StreamedCodes, check: int, mark: int, where: str) -> tuple[int, Numbers]:
    """The checksum after a moment, and its codes."""
    levels, tokens = len(header.bits), header.channels * header.bands
    counts, payload, at = np.full(tokens, levels), b"", 0
    if mark > MARKS:
        width = levels.bit_length()
        at = tokens * width
        payload = _bytes(source, -(-at // 8))
        counts = from_bits(np.unpackbits(np.frombuffer(payload, np.uint8))[:at], width)
        if counts.max() > levels:
            raise damaged(where, "a token sends more levels than there are")
    sizes = [sum(header.bits[levels - count :]) for count in counts.tolist()]
    payload += _bytes(source, -(-(at + sum(sizes)) // 8) - len(payload))
    check = zlib.crc32(payload, check)
    if (mark - 1) % MARKS != check % MARKS or mark > 2 * MARKS:
        raise damaged(where, "a moment does not have its check")
    stream = np.unpackbits(np.frombuffer(payload, np.uint8))
    codes = np.full((tokens, levels), -1, np.int64)
    for token, count in enumerate(counts.tolist()):
        for level in range(levels - count, levels):
            codes[token, level] = from_bits(stream[at : at + header.bits[level]], header.bits[level])[0]
            at += header.bits[level]
    return check, codes.reshape(header.channels, header.bands, levels)


def _bytes(source: Source, count: int) -> bytes:
    came = source.read(count)
    if len(came) < count:
        raise EOFError
    return came


def is_stream(path: Path) -> bool:
    """Whether a file is a stream."""
    with path.open("rb") as file:
        return file.read(len(STREAM)) == STREAM
