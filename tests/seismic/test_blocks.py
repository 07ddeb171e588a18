"""A long miniSEED file in blocks: the same records, gaps and samples as of the whole, in bounded memory."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from obspy import Stream, Trace, UTCDateTime

from tests.seismic.conftest import Make
from vqtool_seismic import blocks, user_file
from vqtool_seismic.recordings import Recordings

START = UTCDateTime("2014-04-01")


def records(channel: str, begin: float, samples: np.ndarray, rate: float = 100.0, **how: object) -> bytes:
    """Samples as miniSEED; whole numbers are packed as usual."""
    head = {"network": "XX", "station": "AAA", "channel": f"HH{channel}", "sampling_rate": rate}
    content = io.BytesIO()
    Stream([Trace(samples, head | {"starttime": START + begin})]).write(content, format="MSEED", **how)
    return content.getvalue()


def counts(seed: int, samples: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(2**13), 2**13, samples).astype(np.int32)


def with_gaps() -> bytes:
    """Three components in turn, two seconds at a time, with gaps short and long, and an overlap."""
    content, x = b"", {letter: counts(k, 40_000) for k, letter in enumerate("ZNE")}
    for begin in range(0, 40_000, 200):
        for letter in "ZNE":
            shift = {12_000: 2, 16_000: 5, 20_000: -3}.get(begin, 0) if letter == "N" else 0
            if not (letter == "E" and 24_000 <= begin < 26_000):
                content += records(letter, (begin + shift) / 100, x[letter][begin : begin + 200], reclen=256)
    return content


def with_holes() -> bytes:
    """Floats, of which one, two, three and many in a row are NaN, wherever blocks are cut."""
    x = counts(3, 20_000).astype(np.float32)
    for begin in range(100, 20_000, 397):
        x[begin : begin + 1 + begin % 5] = np.nan
    x[9000:9700] = np.inf
    return records("Z", 0, x, reclen=512)


def with_drift() -> bytes:
    """A clock that is off by a tenth of a sample for each record, and records of two lengths."""
    parts = [
        records("Z", at / 100 + k * 0.001, counts(k, 300)[:300], reclen=512 if k % 3 else 1024)
        for k, at in enumerate(range(0, 60_000, 300))
    ]
    return b"".join(parts)


def one_after_the_other() -> bytes:
    """All of a component, then all of the next; the first has another rate."""
    rates = {"Z": 50.0, "N": 100.0, "E": 100.0}
    return b"".join(records(c, 0, counts(k, 20_000), rates[c], reclen=512) for k, c in enumerate("ZNE"))


@pytest.mark.parametrize("make", [with_gaps, with_holes, with_drift, one_after_the_other])
def test_blocks_make_the_same_as_one_read(make: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mseed"
    path.write_bytes(make())  # type: ignore[operator]
    whole = Recordings(path)
    monkeypatch.setattr(blocks, "SIZE", 8192)
    monkeypatch.setattr(blocks, "STEP", 1024)
    found = Recordings(path)
    cut = sum(len(part.blocks) for parts in found.parts.values() for part in parts)
    assert cut > sum(len(parts) for parts in found.parts.values())
    assert (found.notes, found.skipped) == (whole.notes, whole.skipped)
    assert found.stretches == whole.stretches
    for stretch in whole.stretches:
        for rate in (stretch.rate, 40.0):
            for begin in np.linspace(0, max(0, stretch.end - stretch.begin - 5), 9).round(2):
                one, other = (r.read(stretch, stretch.begin + begin, round(4 * rate), rate) for r in (whole, found))
                np.testing.assert_array_equal(one, other)
        every = round((stretch.end - stretch.begin) * stretch.rate) + 1
        np.testing.assert_array_equal(*(r.read(stretch, stretch.begin, every, stretch.rate) for r in (whole, found)))


def test_a_gap_of_a_sample_at_a_cut_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is cut, a file has as many parts as ObsPy finds in the whole."""
    for gap in (0.4, 0.6, 1.0, 3.0):
        first, second = records("Z", 0, counts(0, 4000), reclen=256), counts(1, 4000)
        path = tmp_path / f"{gap}.mseed"
        path.write_bytes(first + records("Z", 40 + gap / 100, second, reclen=256))
        monkeypatch.setattr(blocks, "SIZE", 10**9)
        whole = [(p.begin, p.end) for p in Recordings(path).parts["XX.AAA..HH"]]
        assert len(whole) == (1 if gap < 0.5 else 2)
        monkeypatch.setattr(blocks, "SIZE", len(first))
        monkeypatch.setattr(blocks, "STEP", 256)
        assert [(p.begin, p.end) for p in Recordings(path).parts["XX.AAA..HH"]] == whole


def test_what_has_no_record_lengths_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mseed"
    path.write_bytes(records("Z", 0, counts(0, 40_000), reclen=512))
    assert blocks.cuts(path)[-1] == path.stat().st_size
    monkeypatch.setattr(blocks, "SIZE", 4096)
    assert len(blocks.blocks_of(path)) > 1
    content = bytearray(path.read_bytes())
    content[512 * 50 + 48 : 512 * 50 + 50] = (999).to_bytes(2, "big")  # another blockette in place of the 1000
    path.write_bytes(content)
    assert blocks.blocks_of(path) == [(None, None)]
    path.write_bytes(b"\0" * 9000)
    assert blocks.blocks_of(path) == [(None, None)]


def test_memory_does_not_grow_with_the_file(mseed: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the index of a file that must be looked through for NaN, and not with what is read of it."""
    monkeypatch.setattr(blocks, "SIZE", 2**16)
    monkeypatch.setattr(blocks, "STEP", 2**12)
    peaks = []
    for minutes in (2, 5, 25):
        path = mseed(f"{minutes}.mseed", {c: np.random.default_rng(0).normal(size=6000 * minutes) for c in "ZNE"})
        tracemalloc.start()
        found = Recordings(path)
        (stretch,) = found.stretches
        for begin in np.linspace(0, 60 * minutes - 31, 7):
            found.read(stretch, stretch.begin + begin.round(2), 3000, 100.0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1] + 50_000


def test_windows_take_no_memory_and_are_counted() -> None:
    record = user_file.Record("a", "b", 10**9, 0.0, lambda *_: np.zeros((3, 0), np.float32), offset=5)
    made = user_file.windows(record.samples, 5600, 32, 5)
    assert next(made)[0] == 27
    for samples in (300, 5600, 5631, 5632, 9000, 123_456):
        each = user_file.Record("a", "b", samples, 0.0, record.read, offset=5)
        assert user_file.windows_of(each, 5600, 32) == len(list(user_file.windows(samples, 5600, 32, 5)))
    assert user_file.windows_of(record, 5600, 32) > 300_000
