"""The .vqc container: codes of one audio file, packed to the bit, with all that a decoder needs and checks.

Version 2, little-endian:

    offset  type  what
    0       3s    "VQC"
    3       u8    version, 2
    4       u8    coding: bit 0 a token sends its last n levels, else all; bit 1 codes are range-coded by how much
                  they are used, which the model knows, else written as bits
    5       u8    channels
    6       u8    levels
    7       u8    tokens that belong to the same moment ("bands")
    8       u16   samples per token
    10      u32   sample rate of the codec, Hz
    14      u32   sample rate of the source, Hz
    18      u64   length of the source in its own samples
    26      8s    digest of the model
    34      f32   for each channel, what the source was multiplied by before it was coded
    ...     u8    for each level, bits of a code
    ...           with bit 0 the numbers of levels [channels, tokens], range-coded; then the codes that are sent, in
                  the order [levels, channels, tokens]: in the same stream with bit 1, else as bits, highest first,
                  filled up with zeros to a byte
    end     u32   CRC-32 of everything before
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool_speech.counts import CountCoder
from vqtool_speech.range_coder import FIXED, MOST, Decoder, Encoder, Fixed
from vqtool_speech.spool import CodeSpool, Numbers

Codes = NDArray[np.int64]
Odds = Sequence[Sequence[float]]  # how much each code of each level is used, in any unit
MAGIC, VERSION = b"VQC", 2
HEADER = struct.Struct("<3s5BHIIQ8s")
COUNTED, BY_USE = 1, 2  # bits of the coding
BLOCK = 1 << 16  # symbols, or bytes, at a time
RATES = (100, 1_000_000)  # Hz, of a codec or a source
LONGEST = 1 << 40  # samples of a source: two years at 16 kHz
GAINS = (1e-30, 1e30)  # of a channel that is not silent


def nothing(count: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a .vqc file says about its codes."""

    rate: int  # Hz, of the codec
    source_rate: int  # Hz
    length: int  # samples of the source, at its own rate
    bits: tuple[int, ...]  # of a code of each level
    stride: int  # samples per token, at the codec's rate
    bands: int  # tokens of the same moment
    gains: tuple[float, ...]  # of each channel: the source times this was coded
    model: str  # 16 hex digits

    @property
    def channels(self) -> int:
        """How many signals there are."""
        return len(self.gains)

    @property
    def levels(self) -> int:
        """How many levels there are."""
        return len(self.bits)

    @property
    def samples(self) -> int:
        """The length at the codec's rate."""
        return samples_at(self.length, self.source_rate, self.rate)

    @property
    def tokens(self) -> int:
        """Tokens of each channel: whole moments."""
        return -(-self.samples // (self.stride * self.bands)) * self.bands

    @property
    def frame(self) -> int:
        """Bytes of a file that are not codes: the header and the checksum."""
        return HEADER.size + 4 * self.channels + self.levels + 4

    @property
    def seconds(self) -> float:
        """How long the source is."""
        return self.length / self.source_rate


def samples_at(length: int, source_rate: int, rate: int) -> int:
    """How many samples at `rate` cover `length` samples at `source_rate`."""
    return -(-length * rate // source_rate)


def widths(sizes: Sequence[int], codes: Any) -> tuple[int, ...]:
    """Bits of a code of each level of `codes` [..., levels], whose codebooks have these `sizes`."""
    return tuple(max(1, (int(size) - 1).bit_length()) for size in sizes[: codes.shape[-1]])


def pack(header: Header, codes: Codes, odds: Odds | None = None) -> bytes:
    """`codes` [channels, tokens, levels] as a file; -1 for levels that are not sent, none of which follows a sent one.

    Raises:
        ValueError: the codes do not fit the header.
    """
    if codes.shape[::2] != (header.channels, header.levels):
        raise ValueError(f"codes {codes.shape} for a header of {(header.channels, header.tokens, header.levels)}")
    spool = CodeSpool(header.channels, header.bits)
    spool.add(codes)
    return b"".join(packed(header, spool, odds))


def packed(
    header: Header, codes: CodeSpool, odds: Odds | None = None, advance: Callable[[int], None] = nothing
) -> Iterator[bytes]:
    """A file of `codes`, some bytes at a time; `advance` hears of the symbols that were written, `symbols` in all.

    With `odds` a code that is used much takes few bits; who unpacks must know the same.

    Raises:
        ValueError: the codes do not fit the header.
    """
    if codes.tokens != header.tokens:
        raise ValueError(f"{codes.tokens} tokens for a header of {header.tokens}")
    if odds is not None and max(map(len, odds)) > FIXED // 2:  # so many codes are not counted out to the last
        odds = None
    checksum = 0
    for part in _content(header, codes, odds, advance):
        checksum = zlib.crc32(part, checksum)
        yield part
    yield struct.pack("<I", checksum)


def symbols(codes: CodeSpool) -> int:
    """How many symbols a file of `codes` has."""
    return int(codes.sent.sum()) + (0 if codes.whole else codes.tokens * codes.channels)


def _content(header: Header, codes: CodeSpool, odds: Odds | None, advance: Callable[[int], None]) -> Iterator[bytes]:
    """Everything but the checksum."""
    coding = (0 if codes.whole else COUNTED) | (0 if odds is None else BY_USE)
    yield HEADER.pack(
        MAGIC, VERSION, coding, header.channels, header.levels, header.bands, header.stride, header.rate,
        header.source_rate, header.length, bytes.fromhex(header.model),
    ) + struct.pack(f"<{header.channels}f", *header.gains) + bytes(header.bits)  # fmt: skip
    coder = Encoder()
    if coding & COUNTED:
        expected = CountCoder(header.levels, header.bands)
        for channel in range(header.channels):
            expected.begin()
            for block in codes.spool.read(("counts", channel)):
                expected.put(coder, block.tolist())
                advance(len(block))
                yield coder.taken()
    rows = [(level, channel) for level in range(header.levels) for channel in range(header.channels)]
    if odds is not None:
        tables = [Fixed(use) for use in odds[: header.levels]]
        for level, channel in rows:
            for block in codes.spool.read((level, channel)):
                coder.put_fixed(block.tolist(), tables[level])
                advance(len(block))
                yield coder.taken()
    if coding:
        yield coder.finish()
    if odds is None:
        spare = np.zeros(0, np.uint8)
        for level, channel in rows:
            for block in codes.spool.read((level, channel)):
                spare = np.concatenate([spare, to_bits(block, header.bits[level])])
                whole = len(spare) // 8 * 8
                advance(len(block))
                yield np.packbits(spare[:whole]).tobytes()
                spare = spare[whole:]
        yield np.packbits(spare).tobytes()


def unpack(
    file: BinaryIO, where: str, odds: Odds | None = None, advance: Callable[[int], None] = nothing
) -> tuple[Header, CodeSpool]:
    """The header and the codes of an open file; `advance` hears of the bytes that were read.

    Raises VqtoolError for anything but the file as it was written: another format or version, a cut, a flipped bit, or
    a header that promises more than the bytes after it can hold.
    """
    header = header_of(file, where)
    try:
        return header, _codes(header, file, where, odds, advance)
    except EOFError as error:
        raise damaged(where, str(error)) from error


def header_of(file: BinaryIO, where: str) -> Header:
    """The header of an open file, all of which is checked but the codes' meaning: see `unpack`."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    content = file.read(HEADER.size + 5 * 255)
    if content[:3] != MAGIC:
        raise VqtoolError(f"`{where}` is not a .vqc file", hint="vqtool encode writes such files", exit_code=1)
    if len(content) > 3 and content[3] != VERSION:
        raise VqtoolError(
            f"`{where}` is a .vqc file of version {content[3]}; this vqtool reads version {VERSION}",
            hint="decode it with the vqtool that wrote it",
            exit_code=1,
        )
    if size < HEADER.size + 8 or _checksum(file, size - 4) != int.from_bytes(file.read(4), "little"):
        raise damaged(where, "its checksum does not fit")
    _, _, coding, channels, levels, bands, stride, rate, source_rate, length, model = HEADER.unpack_from(content)
    start = HEADER.size + 4 * channels
    bits = tuple(content[start : start + levels])
    sense = channels and levels and bands and stride and all(0 < b <= 32 for b in bits)
    if coding > COUNTED | BY_USE or not sense or start + levels > size - 4:
        raise damaged(where, "its header makes no sense")
    gains = struct.unpack_from(f"<{channels}f", content, HEADER.size)
    header = Header(rate, source_rate, length, bits, stride, bands, gains, model.hex())
    check(header, where)
    return header


def check(header: Header, where: str) -> None:
    """Refuse rates, lengths and gains that no sound has."""
    for rate in (header.rate, header.source_rate):
        if not RATES[0] <= rate <= RATES[1]:
            raise damaged(where, f"a sample rate of {rate} Hz is not between {RATES[0]} and {RATES[1]}")
    if not 0 < header.length <= LONGEST:
        raise damaged(where, f"a length of {header.length} samples is not between 1 and {LONGEST}")
    for channel, gain in enumerate(header.gains):
        if not (GAINS[0] <= gain <= GAINS[1] or gain == math.inf):
            raise damaged(
                where, f"the gain of channel {channel} is {gain:g}, not between {GAINS[0]:g} and {GAINS[1]:g}"
            )


def _checksum(file: BinaryIO, size: int) -> int:
    """The CRC-32 of the first `size` bytes."""
    file.seek(0)
    checksum = 0
    while size and (part := file.read(min(size, BLOCK))):
        checksum, size = zlib.crc32(part, checksum), size - len(part)
    return checksum


class Payload:
    """The `size` bytes of a file from `start` on; `advance` hears of those that were read."""

    def __init__(self, file: BinaryIO, start: int, size: int, advance: Callable[[int], None]) -> None:
        self.file, self.start, self.size, self.advance = file, start, size, advance
        self.seek(0)

    def seek(self, at: int) -> None:
        """Go to a byte."""
        self.file.seek(self.start + at)
        self.left = self.size - at

    def read(self, count: int) -> bytes:
        """Up to `count` bytes."""
        part = self.file.read(min(count, self.left))
        self.left -= len(part)
        self.advance(len(part))
        return part


def _codes(header: Header, file: BinaryIO, where: str, odds: Odds | None, advance: Callable[[int], None]) -> CodeSpool:
    """The codes of a file whose payload has exactly the length that its header and counts say."""
    size, start = file.seek(0, io.SEEK_END), HEADER.size + 4 * header.channels + header.levels
    file.seek(4)
    coding = file.read(1)[0]
    payload = Payload(file, start, size - 4 - start, advance)
    if coding & BY_USE and (odds is None or len(odds) < header.levels):
        raise VqtoolError(f"`{where}` needs the use of its model's codes", hint="decode it with its model")
    tables = [Fixed(use) for use in (odds or ())[: header.levels]] if coding & BY_USE else None
    promised = f"its header promises {header.seconds:.0f} s of sound, which {size} bytes cannot hold"
    if least_bits(header, coding, tables) > 8 * payload.size:
        raise damaged(where, promised)
    codes, coder = CodeSpool(header.channels, header.bits), Decoder(payload) if coding else None
    codes.tokens = header.tokens
    least = np.array([table.least_bits for table in tables] if tables else header.bits)
    expected = CountCoder(header.levels, header.bands)
    for channel in range(header.channels):
        expected.begin()
        for count in _blocks(header.tokens):
            if coder and coding & COUNTED:
                codes.add_counts(channel, np.array(expected.get(coder, count), np.int64))
                if codes.sent.sum(1) @ least > 8 * (payload.size - coder.at):
                    raise damaged(where, promised)
            else:
                codes.add_counts(channel, np.full(count, header.levels))
    plain_bits = 0 if tables else int((codes.sent.sum(1) * np.array(header.bits)).sum())
    used = coder.at if coder else 0
    if not tables and used + -(-plain_bits // 8) != payload.size:
        raise damaged(where, f"it holds {payload.size} bytes of codes where {used + -(-plain_bits // 8)} are expected")
    take = _by_use(coder, tables) if coder and tables else _by_bits(payload, used, header.bits)
    for level in range(header.levels):
        for channel in range(header.channels):
            for count in _blocks(int(codes.sent[level, channel])):
                codes.spool.add((level, channel), take(level, count))
    if tables and coder and coder.at != payload.size:
        raise damaged(where, f"it holds {payload.size} bytes of codes where {coder.at} are expected")
    return codes


def least_bits(header: Header, coding: int, tables: Sequence[Fixed] | None) -> float:
    """What the codes of such a header take at least: as if no token had a code, or every code were the likeliest."""
    tokens = header.tokens * header.channels
    if coding & COUNTED:  # a count is at most as likely as all others at their least frequency leave it
        return -tokens * math.log2(1 - header.levels / MOST)
    return tokens * (sum(table.least_bits for table in tables) if tables else sum(header.bits))


def _by_use(coder: Decoder, tables: Sequence[Fixed]) -> Callable[[int, int], Numbers]:
    """What reads the next codes of a level that are coded by how much they are used."""
    return lambda level, count: np.array(coder.get_fixed(count, tables[level]), np.int64)


def _by_bits(payload: Payload, at: int, bits: Sequence[int]) -> Callable[[int, int], Numbers]:
    """What reads the next codes of a level that are written as bits, from the byte `at` on."""
    payload.seek(at)
    spare = np.zeros(0, np.uint8)

    def take(level: int, count: int) -> Numbers:
        nonlocal spare
        size = count * bits[level]
        more = payload.read(max(0, -(-(size - len(spare)) // 8)))
        spare = np.concatenate([spare, np.unpackbits(np.frombuffer(more, np.uint8))])
        if len(spare) < size:
            raise EOFError("the codes end early")
        mine, spare = spare[:size], spare[size:]
        return from_bits(mine, bits[level])

    return take


def _blocks(count: int) -> Iterator[int]:
    """`count` in parts of up to `BLOCK`."""
    for first in range(0, count, BLOCK):
        yield min(BLOCK, count - first)


def to_bits(values: Codes, width: int) -> NDArray[np.uint8]:
    """`values` [n] as bits [n * width], the highest first."""
    places = np.arange(width - 1, -1, -1)
    return ((values[:, None] >> places) & 1).astype(np.uint8).ravel()


def from_bits(stream: NDArray[np.uint8], width: int) -> Codes:
    """The inverse of `to_bits`."""
    weights = 1 << np.arange(width - 1, -1, -1)
    return stream.reshape(-1, width).astype(np.int64) @ weights


def damaged(where: str, why: str) -> VqtoolError:
    """The error for a file that is not as it was written."""
    hint = "encode the sound again, or fetch the file again"
    return VqtoolError(f"`{where}` is damaged or cut short: {why}", hint=hint, exit_code=1)
