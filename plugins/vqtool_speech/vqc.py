"""The .vqc container: codes of one audio file, packed to the bit, with all that a decoder needs and checks.

Version 1, little-endian: 40 bytes of header, then the payload.

    offset  type  what
    0       3s    "VQC"
    3       u8    version, 1
    4       u8    coding of the payload: 0 all levels of every token, 1 with the number of levels of each token
    5       u8    channels
    6       u8    levels
    7       u8    bits of a code
    8       u32   sample rate of the codec, Hz
    12      u32   sample rate of the source, Hz
    16      u64   length of the source in its own samples
    24      f32   what the source was multiplied by before it was coded
    28      8s    digest of the model
    36      u32   CRC-32 of everything else

The payload is a stream of bits, highest first, filled up with zeros to a byte: for coding 1 the numbers of levels
[channels, tokens], then the codes that are sent [channels, tokens, levels].
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError

Codes = NDArray[np.int64]
MAGIC, VERSION = b"VQC", 1
HEADER = struct.Struct("<3s5B2IQf8sI")
ALL, COUNTED = 0, 1


@dataclass(frozen=True, slots=True)
class Header:
    """What a .vqc file says about its codes."""

    rate: int  # Hz, of the codec
    source_rate: int  # Hz
    length: int  # samples of the source, at its own rate
    channels: int
    levels: int
    bits: int  # of a code
    stride: int  # samples of the codec's rate per token; known to the model, not stored
    gain: float  # the source times this was coded
    model: str  # 16 hex digits

    @property
    def samples(self) -> int:
        """The length at the codec's rate."""
        return samples_at(self.length, self.source_rate, self.rate)

    @property
    def tokens(self) -> int:
        """Tokens of each channel."""
        return -(-self.samples // self.stride)

    @property
    def seconds(self) -> float:
        """How long the source is."""
        return self.length / self.source_rate


def samples_at(length: int, source_rate: int, rate: int) -> int:
    """How many samples at `rate` cover `length` samples at `source_rate`."""
    return -(-length * rate // source_rate)


def bitrate(size: int, seconds: float) -> float:
    """Bits per second of a file of `size` bytes."""
    return size * 8 / seconds if seconds > 0 else 0.0


def pack(header: Header, codes: Codes) -> bytes:
    """`codes` [channels, tokens, levels] as a file; -1 for levels that are not sent, which only a sent one may precede.

    Raises:
        ValueError: the codes do not fit the header.
    """
    if codes.shape != (header.channels, header.tokens, header.levels):
        raise ValueError(f"codes {codes.shape} for a header of {(header.channels, header.tokens, header.levels)}")
    sent = codes >= 0
    counts = sent.sum(-1)
    if codes.max(initial=0) >> header.bits or (sent != (np.arange(header.levels) < counts[..., None])).any():
        raise ValueError("a code is too large, or one is sent after one that is not")
    coding = ALL if sent.all() else COUNTED
    parts = [] if coding == ALL else [to_bits(counts.ravel(), count_bits(header.levels))]
    payload = np.packbits(np.concatenate([*parts, to_bits(codes[sent], header.bits)])).tobytes()
    head = _head(header, coding, 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head + payload)) + payload


def unpack(content: bytes, stride: int, where: str) -> tuple[Header, Codes]:
    """The header and the codes [channels, tokens, levels] of a file's `content`; `where` names it in errors.

    Raises VqtoolError for anything but the file as it was written: another format or version, a cut, a flipped bit.
    """
    if len(content) < HEADER.size or content[:3] != MAGIC:
        raise VqtoolError(
            f"`{where}` is no .vqc file, or cut short", hint="vqtool encode writes such files", exit_code=1
        )
    if content[3] != VERSION:
        raise VqtoolError(
            f"`{where}` is a .vqc file of version {content[3]}; this vqtool reads version {VERSION}",
            hint="decode it with the vqtool that wrote it",
            exit_code=1,
        )
    *fields, crc = HEADER.unpack(content[: HEADER.size])
    payload = content[HEADER.size :]
    if zlib.crc32(content[: HEADER.size - 4] + payload) != crc:
        raise _damaged(where, "its checksum does not fit")
    _, _, coding, channels, levels, bits, rate, source_rate, length, gain, model = fields
    if coding not in (ALL, COUNTED) or not (rate and source_rate and channels and levels and 0 < bits <= 32):
        raise _damaged(where, "its header makes no sense")
    header = Header(rate, source_rate, length, channels, levels, bits, stride, gain, model.hex())
    return header, _codes(header, coding, payload, where)


def _codes(header: Header, coding: int, payload: bytes, where: str) -> Codes:
    """The codes of a payload that has exactly the length that its header and counts tell."""
    stream = np.unpackbits(np.frombuffer(payload, np.uint8))
    tokens, at = header.channels * header.tokens, 0
    counts = np.full(tokens, header.levels)
    if coding == COUNTED:
        at = tokens * count_bits(header.levels)
        if at > stream.size:
            raise _damaged(where, "it is cut short")
        counts = from_bits(stream[:at], count_bits(header.levels))
    end = at + int(counts.sum()) * header.bits
    if counts.max(initial=0) > header.levels or -(-end // 8) != len(payload):
        raise _damaged(where, f"it holds {len(payload)} bytes of codes where {-(-end // 8)} are expected")
    codes = np.full((tokens, header.levels), -1, np.int64)
    codes[np.arange(header.levels) < counts[:, None]] = from_bits(stream[at:end], header.bits)
    return codes.reshape(header.channels, header.tokens, header.levels)


def count_bits(levels: int) -> int:
    """Bits that tell how many of `levels` are sent: 0 to all."""
    return math.ceil(math.log2(levels + 1))


def to_bits(values: Codes, width: int) -> NDArray[np.uint8]:
    """`values` [n] as bits [n * width], the highest first."""
    places = np.arange(width - 1, -1, -1)
    return ((values[:, None] >> places) & 1).astype(np.uint8).ravel()


def from_bits(stream: NDArray[np.uint8], width: int) -> Codes:
    """The inverse of `to_bits`."""
    weights = 1 << np.arange(width - 1, -1, -1)
    return stream.reshape(-1, width).astype(np.int64) @ weights


def _head(header: Header, coding: int, crc: int) -> bytes:
    return HEADER.pack(
        MAGIC, VERSION, coding, header.channels, header.levels, header.bits, header.rate, header.source_rate,
        header.length, header.gain, bytes.fromhex(header.model), crc,
    )  # fmt: skip


def _damaged(where: str, why: str) -> VqtoolError:
    return VqtoolError(
        f"`{where}` is damaged: {why}", hint="encode the sound again, or fetch the file again", exit_code=1
    )
