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

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool_speech.range_coder import FIXED, Decoder, Encoder, Fixed, Table

Codes = NDArray[np.int64]
Odds = Sequence[Sequence[float]]  # how much each code of each level is used, in any unit
MAGIC, VERSION = b"VQC", 2
HEADER = struct.Struct("<3s5BHIIQ8s")
COUNTED, BY_USE = 1, 2  # bits of the coding


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
    def seconds(self) -> float:
        """How long the source is."""
        return self.length / self.source_rate


def samples_at(length: int, source_rate: int, rate: int) -> int:
    """How many samples at `rate` cover `length` samples at `source_rate`."""
    return -(-length * rate // source_rate)


def widths(sizes: Sequence[int], codes: Any) -> tuple[int, ...]:
    """Bits of a code of each level of `codes` [..., levels], whose codebooks have these `sizes`."""
    return tuple(max(1, (int(size) - 1).bit_length()) for size in sizes[: codes.shape[-1]])


def are_levels(codes: Codes) -> bool:
    """Whether in `codes` [..., levels] none that is not sent follows one that is: no file holds any others."""
    return bool(((codes >= 0) == _last((codes >= 0).sum(-1), codes.shape[-1])).all())


def pack(header: Header, codes: Codes, odds: Odds | None = None) -> bytes:
    """`codes` [channels, tokens, levels] as a file; -1 for levels that are not sent, none of which follows a sent one.

    With `odds` a code that is used much takes few bits; who unpacks must know the same.

    Raises:
        ValueError: the codes do not fit the header.
    """
    if codes.shape != (header.channels, header.tokens, header.levels):
        raise ValueError(f"codes {codes.shape} for a header of {(header.channels, header.tokens, header.levels)}")
    if odds is not None and max(map(len, odds)) > FIXED // 2:  # so many codes are not counted out to the last
        odds = None
    sent = codes >= 0
    counts = sent.sum(-1)
    if (codes.max((0, 1), initial=0) >> np.array(header.bits)).any() or not are_levels(codes):
        raise ValueError("a code is too large, or one that is not sent follows one that is")
    coding = (0 if sent.all() else COUNTED) | (0 if odds is None else BY_USE)
    head = HEADER.pack(
        MAGIC, VERSION, coding, header.channels, header.levels, header.bands, header.stride, header.rate,
        header.source_rate, header.length, bytes.fromhex(header.model),
    )  # fmt: skip
    content = head + struct.pack(f"<{header.channels}f", *header.gains) + bytes(header.bits)
    coder = Encoder()
    if coding & COUNTED:
        put_counts(coder, counts, header.levels, header.bands)
    planes = [codes[..., k][sent[..., k]] for k in range(header.levels)]
    if odds is not None:
        for plane, use in zip(planes, odds, strict=False):
            coder.put_fixed(plane.tolist(), Fixed(use))
    content += coder.finish() if coding else b""
    if odds is None:
        bits = [to_bits(plane, width) for plane, width in zip(planes, header.bits, strict=True)]
        content += np.packbits(np.concatenate(bits)).tobytes()
    return content + struct.pack("<I", zlib.crc32(content))


def unpack(content: bytes, where: str, odds: Odds | None = None) -> tuple[Header, Codes]:
    """The header and the codes [channels, tokens, levels] of a file's `content`; `where` names it in errors.

    Raises VqtoolError for anything but the file as it was written: another format or version, a cut, a flipped bit.
    """
    header = header_of(content, where)
    return header, _codes(header, content, where, odds)


def header_of(content: bytes, where: str) -> Header:
    """The header of a file's `content`, all of which is checked but the codes' meaning: see `unpack`."""
    if content[:3] != MAGIC:
        raise VqtoolError(f"`{where}` is no .vqc file", hint="vqtool encode writes such files", exit_code=1)
    if len(content) > 3 and content[3] != VERSION:
        raise VqtoolError(
            f"`{where}` is a .vqc file of version {content[3]}; this vqtool reads version {VERSION}",
            hint="decode it with the vqtool that wrote it",
            exit_code=1,
        )
    if len(content) < HEADER.size + 8 or zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
        raise _damaged(where, "its checksum does not fit")
    _, _, coding, channels, levels, bands, stride, rate, source_rate, length, model = HEADER.unpack_from(content)
    start = HEADER.size + 4 * channels
    bits = tuple(content[start : start + levels])
    sense = channels and levels and bands and stride and rate and source_rate and all(0 < b <= 32 for b in bits)
    if coding > COUNTED | BY_USE or not sense or start + levels > len(content) - 4:
        raise _damaged(where, "its header makes no sense")
    gains = struct.unpack_from(f"<{channels}f", content, HEADER.size)
    return Header(rate, source_rate, length, bits, stride, bands, gains, model.hex())


def _codes(header: Header, content: bytes, where: str, odds: Odds | None) -> Codes:
    """The codes of a file whose payload has exactly the length that its header and counts tell."""
    coding, payload = content[4], content[HEADER.size + 4 * header.channels + header.levels : -4]
    counts, coder = np.full((header.channels, header.tokens), header.levels), Decoder(payload)
    if coding & COUNTED:
        counts = get_counts(coder, header)
    sent = _last(counts, header.levels)
    codes = np.full(sent.shape, -1, np.int64)
    many = sent.sum((0, 1))
    if coding & BY_USE:
        if odds is None or len(odds) < header.levels:
            raise VqtoolError(f"`{where}` needs the use of its model's codes", hint="decode it with its model")
        for level, count in enumerate(many.tolist()):
            codes[..., level][sent[..., level]] = coder.get_fixed(count, Fixed(odds[level]))
    at, size = (coder.at if coding else 0), many * np.array(header.bits) * (not coding & BY_USE)
    if at + -(-int(size.sum()) // 8) != len(payload):
        raise _damaged(
            where, f"it holds {len(payload)} bytes of codes where {at + -(-int(size.sum()) // 8)} are expected"
        )
    if not coding & BY_USE:
        stream = np.unpackbits(np.frombuffer(payload, np.uint8, offset=at), count=int(size.sum()))
        for level, plane in enumerate(np.split(stream, size.cumsum()[:-1])):
            codes[..., level][sent[..., level]] = from_bits(plane, header.bits[level])
    return codes


def put_counts(coder: Encoder, counts: Codes, levels: int, bands: int) -> None:
    """Code numbers of levels [channels, tokens], each by what its neighbours before it lead to expect."""
    tables = count_tables(levels)
    for row in counts.tolist():
        for at, count in enumerate(row):
            coder.put(count, tables[_expected(row, at, bands)])


def get_counts(coder: Decoder, header: Header) -> Codes:
    """The inverse of `put_counts`: [channels, tokens]."""
    tables = count_tables(header.levels)
    rows: list[list[int]] = []
    for _ in range(header.channels):
        row: list[int] = []
        for at in range(header.tokens):
            row.append(coder.get(tables[_expected(row, at, header.bands)]))
        rows.append(row)
    return np.array(rows, dtype=np.int64).reshape(header.channels, header.tokens)


def _expected(row: list[int], at: int, bands: int) -> int:
    """The context of a token: about twice the number of levels that its neighbours lead to expect, not below 0.

    Read are the band below at the same moment, and at the moment before the same band, the one above and the one
    below; the weights are those of a least-squares fit on speech, in elevenths.
    """
    band = at % bands
    below = row[at - 1] if band else 0
    if at < bands:
        return 2 * below
    before = row[at - bands]
    above = row[at - bands + 1] if band + 1 < bands else before
    under = row[at - bands - 1] if band else before
    return max(0, (14 * before + 12 * below + 4 * above - 8 * under + 5) // 11)


def count_tables(levels: int) -> list[Table]:
    """A table for each context: at first a number is half as likely for each half level it is from the expected."""
    contexts = range(30 * levels // 11 + 2)
    rows = [[max(1, 1024 >> min(10, abs(2 * n - context))) for n in range(levels + 1)] for context in contexts]
    rows[0] = [1024, *([8] * levels)]  # where nothing is around, there is hardly ever anything
    return [Table(row) for row in rows]


def to_bits(values: Codes, width: int) -> NDArray[np.uint8]:
    """`values` [n] as bits [n * width], the highest first."""
    places = np.arange(width - 1, -1, -1)
    return ((values[:, None] >> places) & 1).astype(np.uint8).ravel()


def from_bits(stream: NDArray[np.uint8], width: int) -> Codes:
    """The inverse of `to_bits`."""
    weights = 1 << np.arange(width - 1, -1, -1)
    return stream.reshape(-1, width).astype(np.int64) @ weights


def _last(counts: Codes, levels: int) -> NDArray[np.bool_]:
    """Which levels [..., levels] are sent of tokens that send their last `counts` [...]."""
    return np.arange(levels) >= levels - counts[..., None]


def _damaged(where: str, why: str) -> VqtoolError:
    hint = "encode the sound again, or fetch the file again"
    return VqtoolError(f"`{where}` is damaged or cut short: {why}", hint=hint, exit_code=1)
