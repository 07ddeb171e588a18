"""The container: everything comes back, and nothing but the file as it was written is taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtool.errors import VqtoolError
from vqtool_speech.range_coder import Decoder, Encoder, Table
from vqtool_speech.vqc import Codes, Header, pack, unpack

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


@given(
    st.integers(0, 99), st.integers(1, 6), st.integers(1, 12), st.integers(1, 5000), st.integers(1, 3), st.booleans()
)
def test_what_goes_in_comes_out(seed: int, levels: int, bits: int, length: int, channels: int, every: bool) -> None:
    h = header(levels, bits, length, channels)
    codes = codes_of(h, seed, every=every)
    told, back = unpack(pack(h, codes), "a.vqc")
    assert told == h
    assert (back == codes).all()


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
def test_a_flipped_bit_anywhere_is_an_error(every: bool) -> None:
    h = header(length=300)
    content = pack(h, codes_of(h, 1, every=every))
    for at in range(len(content)):
        for bit in (0, 5):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            with pytest.raises(VqtoolError, match=r"a\.vqc"):
                unpack(bytes(flipped), "a.vqc")


def test_a_cut_anywhere_is_an_error_and_so_is_more() -> None:
    h = header(length=300)
    content = pack(h, codes_of(h, 1))
    for end in range(len(content)):
        with pytest.raises(VqtoolError, match=r"a\.vqc"):
            unpack(content[:end], "a.vqc")
    with pytest.raises(VqtoolError, match="checksum"):
        unpack(content + b"\0", "a.vqc")


def test_another_version_says_so() -> None:
    content = bytearray(pack(header(), codes_of(header(), 0)))
    content[3] = 2
    with pytest.raises(VqtoolError, match="version 2"):
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
