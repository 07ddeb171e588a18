"""The container: everything comes back, and nothing but the file as it was written is taken."""

from __future__ import annotations

import errno
import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.speech import whole
from tests.speech.whole import header_of, unpack
from vqtool.errors import VqtoolError
from vqtool_speech import range_coder, spool, vqc
from vqtool_speech.range_coder import Decoder, Encoder, Fixed, Table
from vqtool_speech.vqc import Codes, Header, pack

MODEL = "0123456789abcdef"


def header(levels: int = 5, bits: int = 10, length: int = 3000, channels: int = 1, bands: int = 4) -> Header:
    gains = tuple(np.float32(1.5 + k).item() for k in range(channels))
    return Header(16_000, 44_100, length, (bits,) * (levels - 1) + (max(1, bits - 2),), 8, bands, gains, MODEL)


def codes_of(h: Header, seed: int, *, every: bool = False) -> Codes:
    """Codes of which each token sends a random number of its last levels, or all."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << np.array(h.bits), (h.channels, h.tokens, h.levels))
    counts = np.full(codes.shape[:2], h.levels) if every else rng.integers(0, h.levels + 1, codes.shape[:2])
    return np.where(np.arange(h.levels) >= h.levels - counts[..., None], codes, -1)


def use_of(h: Header, seed: int = 0) -> list[list[float]]:
    """How much each code of each level is used: unevenly, some never."""
    rng = np.random.default_rng(seed)
    return [(rng.exponential(size=1 << bits) * (rng.random(1 << bits) < 0.9)).tolist() for bits in h.bits]


@given(
    st.integers(0, 99), st.integers(1, 6), st.integers(1, 12), st.integers(1, 5000), st.integers(1, 3), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_what_goes_in_comes_out(
    seed: int, levels: int, bits: int, length: int, channels: int, every: bool, known: bool
) -> None:
    h = header(levels, bits, length, channels)
    codes = codes_of(h, seed, every=every)
    use = use_of(h, seed) if known else None
    content = pack(h, codes, use)
    result, back = unpack(content, "a.vqc", use)
    assert result == h == header_of(content, "a.vqc")
    assert (back == codes).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("every", [True, False])
def test_pieces_of_any_size_are_the_file_of_the_whole(
    every: bool, known: bool, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written and read piece by piece, in memory and on disk, codes are those of whole arrays."""
    monkeypatch.setattr(vqc, "BLOCK", 61)
    monkeypatch.setattr(range_coder, "BLOCK", 61)
    monkeypatch.setattr(spool, "IN_MEMORY", 1000)
    h, rng = header(levels=3, bits=9, length=44_100, channels=channels), np.random.default_rng(0)
    codes, use = codes_of(h, 5, every=every), use_of(h) if known else None
    held, start = spool.CodeSpool(channels, h.bits), 0
    while start < h.tokens:
        size = int(rng.integers(0, 200))
        held.add(codes[:, start : start + size])
        start += size
    heard: list[int] = []
    content = b"".join(vqc.packed(h, held, use, heard.append))
    assert content == whole.pack(h, codes, use) == pack(h, codes, use)
    assert sum(heard) == vqc.symbols(held) == (codes >= 0).sum() + (0 if every else codes[..., 0].size)
    read: list[int] = []
    result, back = vqc.unpack(io.BytesIO(content), "a.vqc", use, read.append)
    assert len(read) > 10
    take, parts = back.reader(), []
    for size in rng.integers(0, 200, 20).tolist():
        parts.append(take(size))
    parts.append(take(h.tokens))
    joined = np.concatenate(parts, 1)
    assert result == h
    assert (joined[:, : h.tokens] == codes).all()
    assert (joined[:, h.tokens :] == -1).all()


def test_all_levels_take_their_bits_and_no_more() -> None:
    h = header(levels=8, bits=10, length=44_100 * 4, bands=1)
    size = len(pack(h, codes_of(h, 0, every=True)))
    bits = h.tokens * 78
    assert bits / 8 <= size < bits / 8 * 1.01


def test_counts_cost_less_than_their_plain_bits() -> None:
    h = header(levels=7, length=44_100 * 2, bands=4)
    silent = np.full((1, h.tokens, 7), -1)
    assert len(pack(h, silent)) < h.tokens * 3 / 8 * 0.2


@pytest.mark.parametrize("every", [True, False])
def test_codes_that_are_used_much_take_few_bits(every: bool) -> None:
    """The size is that of the codes' entropy, and the model's use of its codes is needed to read them."""
    h = header(levels=2, bits=8, length=44_100 * 4, bands=1)
    chance = np.array(use_of(h)[0])
    chance /= chance.sum()
    rng = np.random.default_rng(0)
    codes = np.stack([rng.choice(256, h.tokens, p=chance), rng.choice(64, h.tokens)], -1)[None]
    if not every:
        codes[0, ::2] = -1
    use = [chance.tolist(), [0.0] * 64]  # what was never trained counts as used alike
    entropy = -(chance[chance > 0] * np.log2(chance[chance > 0])).sum() + 6
    sent, counts = (codes[..., 0] >= 0).sum(), 0 if every else 0.05 * h.tokens
    size = len(pack(h, codes, use))
    assert sent * entropy / 8 * 0.99 < size < (sent * entropy + counts) / 8 * 1.02 + 60
    assert size < len(pack(h, codes)) - 0.02 * sent
    assert (unpack(pack(h, codes, use), "a.vqc", use)[1] == codes).all()
    with pytest.raises(VqtoolError, match="use of its model's codes"):
        unpack(pack(h, codes, use), "a.vqc")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("every", [True, False])
def test_a_flipped_bit_anywhere_is_an_error(every: bool, known: bool) -> None:
    h = header(length=300)
    content = pack(h, codes_of(h, 1, every=every), use_of(h) if known else None)
    for at in range(len(content)):
        for bit in (0, 5):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            with pytest.raises(VqtoolError, match=r"a\.vqc"):
                unpack(bytes(flipped), "a.vqc")


@pytest.mark.parametrize("known", [True, False])
def test_a_cut_anywhere_is_an_error_and_so_is_more(known: bool) -> None:
    h = header(length=300)
    content = pack(h, codes_of(h, 1), use_of(h) if known else None)
    for end in range(len(content)):
        with pytest.raises(VqtoolError, match=r"a\.vqc"):
            unpack(content[:end], "a.vqc")
    with pytest.raises(VqtoolError, match="checksum"):
        unpack(content + b"\0", "a.vqc")


def test_another_version_says_so() -> None:
    content = bytearray(pack(header(), codes_of(header(), 0)))
    content[3] = 1
    with pytest.raises(VqtoolError, match="version 1"):
        unpack(bytes(content), "a.vqc")


def test_codes_that_do_not_fit_are_refused() -> None:
    h = header(levels=3, bits=4)
    good = codes_of(h, 0, every=True)
    with pytest.raises(ValueError, match="too large"):
        pack(h, good + 16)
    gap = good.copy()
    gap[0, 0, 1] = -1
    with pytest.raises(ValueError, match="follows"):
        pack(h, gap)
    with pytest.raises(ValueError, match="header"):
        pack(h, good[:, 1:])


@given(st.lists(st.integers(0, 6), max_size=300), st.integers(0, 5))
def test_the_range_coder_gives_back_its_symbols_and_tells_its_length(symbols: list[int], more: int) -> None:
    encoder, table = Encoder(), Table([1, 900, 1, 1, 40, 1, 1])
    for symbol in symbols:
        encoder.put(symbol, table)
    content = encoder.finish()
    decoder, table = Decoder(content + b"\xff" * more), Table([1, 900, 1, 1, 40, 1, 1])
    assert [decoder.get(table) for _ in symbols] == symbols
    assert decoder.at == len(content)


def test_the_range_coder_comes_near_the_entropy() -> None:
    rng = np.random.default_rng(0)
    chance = np.array([0.9, 0.06, 0.03, 0.01])
    symbols = rng.choice(4, 4000, p=chance).tolist()
    encoder, table = Encoder(), Table([8, 8, 8, 8])
    for symbol in symbols:
        encoder.put(symbol, table)
    entropy = -(chance * np.log2(chance)).sum() * 4000 / 8
    assert len(encoder.finish()) < 1.05 * entropy + 4


@given(st.lists(st.integers(0, 99), max_size=200), st.lists(st.integers(0, 3), max_size=50))
def test_fixed_frequencies_and_adaptive_ones_share_a_stream(often: list[int], few: list[int]) -> None:
    fixed = Fixed([0.0, 5.0] * 50)
    encoder, table = Encoder(), Table([1, 1, 1, 1])
    for symbol in few:
        encoder.put(symbol, table)
    encoder.put_fixed(often, fixed)
    decoder, table = Decoder(content := encoder.finish()), Table([1, 1, 1, 1])
    assert [decoder.get(table) for _ in few] == few
    assert decoder.get_fixed(len(often), fixed) == often
    assert decoder.at == len(content)
    with pytest.raises(ValueError, match="too many"):
        Fixed([1.0] * 40_000)


def test_very_many_codes_are_written_as_bits() -> None:
    h = header(levels=2, bits=15, length=300)
    codes = codes_of(h, 0)
    use = [[1.0] * (1 << bits) for bits in h.bits]
    assert pack(h, codes, use) == pack(h, codes)
    assert (unpack(pack(h, codes, use), "a.vqc", use)[1] == codes).all()


def test_codes_that_a_disk_has_no_room_for_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    codes = spool.CodeSpool(1, (4,))
    codes.spool.file = Full()
    with pytest.raises(VqtoolError, match="No space left") as caught:
        codes.add(np.ones((1, 9, 1), np.int64))
    assert "TMPDIR" in str(caught.value.hint)


def changed(content: bytes, at: int, kind: str, value: float) -> bytes:
    """A file with one number of its header changed, and a checksum that fits."""
    made = bytearray(content)
    struct.pack_into(kind, made, at, value)
    made[-4:] = zlib.crc32(made[:-4]).to_bytes(4, "little")
    return bytes(made)


@pytest.mark.parametrize(
    ("at", "kind", "value", "says"),
    [
        (10, "<I", 0, "sample rate of 0 Hz"), (10, "<I", 10**9, "sample rate of 1000000000 Hz"),
        (14, "<I", 0, "sample rate of 0 Hz"), (14, "<I", 1, "sample rate of 1 Hz"),
        (18, "<Q", 0, "length of 0 samples"), (18, "<Q", 2**63, "length of 9223372036854775808 samples"),
        (34, "<f", np.nan, "gain of channel 0 is nan"), (34, "<f", 0.0, "gain of channel 0 is 0"),
        (34, "<f", -1.5, "gain of channel 0 is -1.5"), (34, "<f", -np.inf, "gain of channel 0 is -inf"),
        (34, "<f", 1e-40, "gain of channel 0"), (34, "<f", 1e38, "gain of channel 0"),
        (38, "B", 0, "no sense"), (38, "B", 40, "no sense"), (5, "B", 0, "no sense"), (6, "B", 255, "no sense"),
    ],
)  # fmt: skip
def test_a_header_has_bounds(at: int, kind: str, value: float, says: str) -> None:
    content = changed(pack(header(length=300), codes_of(header(length=300), 1)), at, kind, value)
    with pytest.raises(VqtoolError, match=says):
        unpack(content, "a.vqc")


def test_the_gain_of_silence_is_infinite() -> None:
    content = changed(pack(header(length=300), codes_of(header(length=300), 1)), 34, "<f", np.inf)
    assert header_of(content, "a.vqc").gains == (np.inf,)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("every", [True, False])
def test_a_header_that_promises_more_than_the_file_holds_is_refused_at_once(every: bool, known: bool) -> None:
    """Whatever it promises: no time and no memory is spent on it."""
    h = header(levels=6, length=20_000)
    use = use_of(h) if known else None
    content = pack(h, codes_of(h, 1, every=every), use)
    tracemalloc.start()
    for length in (10**9, 10**12):
        began = time.process_time()
        with pytest.raises(VqtoolError, match=r"promises .* cannot hold"):
            unpack(changed(content, 18, "<Q", length), "a.vqc", use)
        assert time.process_time() - began < 2
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("factor", [0.3, 0.9, 1.1, 3])
def test_another_length_than_that_of_the_codes_is_an_error(factor: float, known: bool) -> None:
    h = header(levels=3, length=20_000)
    use = use_of(h) if known else None
    for every in (True, False):
        content = pack(h, codes_of(h, 1, every=every), use)
        with pytest.raises(VqtoolError, match="damaged"):
            unpack(changed(content, 18, "<Q", int(factor * 20_000)), "a.vqc", use)
