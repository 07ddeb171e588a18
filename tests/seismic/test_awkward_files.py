"""Files that are sound but awkward: rates that differ, overlaps, dead and offset sensors, times before 1970."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from obspy import Stream, Trace, UTCDateTime

from tests.seismic.conftest import Make
from tests.seismic.test_user_file import MODEL, SPEC, coded
from vqtool.errors import VqtoolError
from vqtool_seismic import blocks, recordings
from vqtool_seismic.continuous import ContinuousRecords
from vqtool_seismic.recordings import Recordings
from vqtool_seismic.user_file import SeismogramFiles
from vqtool_seismic.windows import standardised

START = UTCDateTime("2024-01-01")
RNG = np.random.default_rng(0)


def counts(samples: int, size: float = 1000.0) -> np.ndarray:
    return (size * RNG.normal(size=samples)).astype(np.int32)


def trace(data: np.ndarray, channel: str = "HHZ", *, station: str = "ABC", rate: float = 100.0, after: float = 0,
          start: UTCDateTime = START) -> Trace:  # fmt: skip
    head = {"network": "XX", "station": station, "channel": channel, "sampling_rate": rate, "starttime": start + after}
    return Trace(data, head)


def write(path: Path, *traces: Trace) -> Path:
    Stream(list(traces)).write(str(path), format="MSEED")
    return path


def notes_of(path: Path) -> list[str]:
    return [note for piece in SeismogramFiles(SPEC).open(path) for note in piece.notes]


def test_every_rate_is_reported_at_once_with_counts(tmp_path: Path) -> None:
    for station, rate in (("AAA", 100.0), ("BBB", 40.0), ("CCC", 20.0), ("DDD", 20.0)):
        write(tmp_path / f"{station}.mseed", *(trace(counts(round(60 * rate)), f"BH{c}", station=station, rate=rate)
                                               for c in "ZNE"))  # fmt: skip
    expected = [
        "resampled 2 records from 20 to 100 Hz (`XX.CCC..BH`, `XX.DDD..BH`)",
        "resampled 1 record from 40 to 100 Hz (`XX.BBB..BH`)",
    ]
    pieces = list(SeismogramFiles(SPEC).open(tmp_path))
    assert pieces[0].notes == expected
    assert not any(piece.notes for piece in pieces[1:])


def test_rates_that_differ_by_parts_per_million_are_one(mseed: Make, tmp_path: Path) -> None:
    x = RNG.normal(size=3000) * 1000
    for letter, rate in (("Z", 100.0), ("N", 99.9998), ("E", 100.0003)):
        mseed(f"ppm/{letter}.mseed", {letter: x}, rate=rate)
    found = Recordings(tmp_path / "ppm")
    (stretch,) = found.stretches
    assert (stretch.rate, stretch.samples) == (100.0, 3000)
    assert found.notes == ["read 2 channels at nearly 100 Hz as 100 Hz: `XX.AAA..HHE`, `XX.AAA..HHN`"]
    assert not found.skipped
    np.testing.assert_array_equal(found.read(stretch, stretch.begin, 3000, 100.0), np.float32([x, x, x]))
    assert not any("resampled" in note for note in notes_of(tmp_path / "ppm"))
    path = mseed("one.mseed", {"Z": x}, rate=19.9999997)
    assert Recordings(path).stretches[0].rate == 20.0


def test_a_clock_that_is_off_by_parts_per_million_keeps_its_time(mseed: Make) -> None:
    """After a quarter of an hour the samples of a clock that is 50 ppm fast are those of its own time."""
    x = np.arange(90_000.0)
    path = mseed("fast.mseed", {"Z": x}, rate=100.005)
    found = Recordings(path)
    (stretch,) = found.stretches
    assert found.read(stretch, stretch.begin + 890, 100, 100.0)[0, 0] == pytest.approx(890 * 100.005, abs=1)


@pytest.mark.parametrize("block", [10**9, 4096])
def test_overlaps_that_differ_are_reported_and_the_first_counts(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "SIZE", block)
    monkeypatch.setattr(blocks, "STEP", 512)
    monkeypatch.setattr(recordings, "COMPARED", 700)
    first, second, again = counts(6000), counts(6000), counts(3000)
    second[:1000] = first[3000:4000]  # the same there
    path = tmp_path / "o" / "a.mseed"
    path.parent.mkdir()
    Stream([trace(first), trace(second, after=30)]).write(str(path), format="MSEED", reclen=512)
    write(tmp_path / "o" / "b.mseed", trace(again, after=60))
    found = Recordings(tmp_path / "o")
    differ = np.count_nonzero(first[4000:] != second[1000:3000]) + np.count_nonzero(second[3000:] != again)
    assert found.notes == [
        f"overlapping records differ in {differ:,} samples; the first in file order is used: `XX.ABC..HHZ`"
    ]
    (stretch,) = found.stretches
    whole = found.read(stretch, stretch.begin, 9000, 100.0)[0]
    np.testing.assert_array_equal(whole, np.r_[first, second[3000:]])
    np.testing.assert_array_equal(found.read(stretch, stretch.begin + 40, 3000, 100.0)[0], whole[4000:7000])


def test_overlaps_that_agree_are_not_worth_a_word(tmp_path: Path) -> None:
    x = counts(6000)
    for name, begin, end in (("a", 0, 4000), ("b", 2000, 6000), ("copy", 0, 4000)):
        write(tmp_path / f"{name}.mseed", trace(x[begin:end], after=begin / 100))
    found = Recordings(tmp_path)
    assert not found.notes
    (stretch,) = found.stretches
    np.testing.assert_array_equal(found.read(stretch, stretch.begin, 6000, 100.0)[0], x)


def test_dead_channels_are_counted_and_nothing_but_them_is_an_error(tmp_path: Path) -> None:
    dead, flat = np.zeros(60_000, np.int32), np.full(60_000, 12_345, np.int32)
    write(tmp_path / "a.mseed", trace(counts(60_000)), trace(dead, "HHN"), trace(flat, "HHE"))
    expected = "2 dead channels (constant throughout): `XX.ABC..HHE`, `XX.ABC..HHN`"
    assert Recordings(tmp_path / "a.mseed").notes == [expected]
    assert expected in notes_of(tmp_path / "a.mseed")
    assert expected in ContinuousRecords(tmp_path / "a.mseed", 100.0, None).notes
    write(tmp_path / "b.mseed", trace(dead), trace(flat, "HHN"), trace(dead, "HHE"))
    with pytest.raises(VqtoolError, match=r"every channel in .* is constant"):
        list(coded(tmp_path / "b.mseed"))


def test_headers_alone_are_read_of_a_channel_that_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is packed as densely as a constant is looked into."""
    read = []
    one = recordings.tracks_of.__globals__
    monkeypatch.setitem(one, "waveforms", lambda *a, waveforms=one["waveforms"], **how: (
        read.append(how.get("headonly", False)), waveforms(*a, **how))[1])  # fmt: skip
    Recordings(write(tmp_path / "live.mseed", trace(counts(60_000))))
    assert read == [True]
    Recordings(write(tmp_path / "b.mseed", trace(np.zeros(60_000, np.int32)), trace(counts(60_000), "HHE")))
    assert read == [True, True, False]


@pytest.mark.parametrize("offset", [8_000_000, 2_000_000_000])
@pytest.mark.parametrize("rate", [100.0, 125.0])
def test_a_quiet_channel_on_a_large_offset_is_alive(tmp_path: Path, offset: int, rate: float) -> None:
    quiet = counts(round(60 * rate), 3)
    waves = {}
    for name, data in (("plain", quiet), ("offset", quiet + offset)):
        path = write(tmp_path / f"{name}.mseed", trace(data.astype(np.int32), rate=rate))
        source = ContinuousRecords(path, 100.0, None)
        read = source.whole(source.traces[0])
        x, scale = standardised(read, 1000, 1024, 4096)
        assert (read.dtype, x.dtype, scale.dtype) == (np.float32,) * 3
        assert 2 < scale[0] < 4
        streamed = next(SeismogramFiles(SPEC).open(path)).batch["x"][:, 0]
        assert 0.5 < streamed.std() < 2
        waves[name] = x, streamed
    for plain, shifted in zip(*waves.values(), strict=True):
        np.testing.assert_allclose(shifted, plain, atol=2e-3)


def test_a_constant_is_dead_whatever_its_rounding() -> None:
    for constant, kind in ((0.1, np.float32), (123456.7, np.float32), (0.1, np.float64), (1e9 / 3, np.float64)):
        noise = 1 + np.finfo(kind).eps / 2 * RNG.choice([-1, 0, 1], size=(3, 4096))
        x, scale = standardised((constant * noise).astype(kind), 100, 1024, 4096)
        assert not x.any()
        assert not scale.any()


def test_times_before_1970_are_dates(tmp_path: Path) -> None:
    for start, first in (("1964-03-28T03:36:14", "1964-03-28T03:36:14"), ("1970-06-01", "1970-06-01T00:00:00")):
        path = write(tmp_path / "old.mseed", *(trace(counts(2000), f"HH{c}", start=UTCDateTime(start)) for c in "ZNE"))
        SeismogramFiles(SPEC).save_codes(tmp_path / "t.csv", coded(path), MODEL)
        with (tmp_path / "t.csv").open() as file:
            times = [row["time"] for row in csv.DictReader(file)]
        assert abs(UTCDateTime(times[0]) - UTCDateTime(first)) < 0.32
        assert UTCDateTime(times[1]) - UTCDateTime(times[0]) == pytest.approx(0.32)
        assert all(time[:4] == first[:4] and time.endswith("Z") for time in times)


def test_one_text_channel_does_not_stop_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "z.mseed", trace(counts(2000)))
    log = trace(np.frombuffer(b"Quanterra " * 20, "S1"), "ACE", rate=1.0)
    write(tmp_path / "log.mseed", log)
    assert notes_of(tmp_path) == ["skipped 1: text, not samples (`ACE`)"]


def test_warnings_of_obspy_are_counted(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for name in "abc":
        one = trace(np.float32(counts(2000)), rate=1 / 0.01)
        path = tmp_path / f"{name}.sac"
        one.write(str(path), format="SAC")
        content = bytearray(path.read_bytes())
        content[:4] = np.float32(0.0100001).tobytes()
        path.write_bytes(content)
    recwarn.clear()
    (note, *_) = Recordings(tmp_path).notes
    assert note.startswith("`a.sac` was read with 1 warning of ObsPy, the first: Sample spacing")
    assert note.endswith("(and 2 other files with warnings)")
    assert not recwarn.list


def test_many_damaged_files_are_a_few_lines(mseed: Make, tmp_path: Path) -> None:
    mseed("m/good.mseed", {"Z": RNG.normal(size=3000)})
    for number in range(30):
        path = mseed(f"m/{number}.mseed", {"Z": RNG.normal(size=3000)}, station=f"S{number}")
        path.write_bytes(path.read_bytes() + b"\x01" * 700)
    found = Recordings(tmp_path / "m")
    assert len(found.skipped) == 6
    assert found.skipped["damaged files that are not named"] == 25


def test_many_short_records_are_a_few_lines(tmp_path: Path) -> None:
    write(tmp_path / "a.mseed", trace(counts(2000)), *(trace(counts(200), station=f"S{n}") for n in range(30)))
    notes = notes_of(tmp_path)
    assert len(notes) == 6
    assert notes[-1] == "skipped 25 more records of less than half a window"
