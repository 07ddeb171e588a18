"""Continuous records: components put together, gaps, rates, what is skipped, picks, and splits without a leak."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.seismic.conftest import Make, motion
from vqtool.api import DataSpec, Field
from vqtool.errors import VqtoolError
from vqtool_seismic import recordings, tracks
from vqtool_seismic.continuous import ContinuousRecords
from vqtool_seismic.data.miniseed import Miniseed
from vqtool_seismic.picks import Pick, arrivals, of_station, read_picks
from vqtool_seismic.recordings import Recordings, pieces
from vqtool_seismic.user_file import SeismogramFiles

RNG = np.random.default_rng(0)
START = 1396310400.0  # 2014-04-01


def noise(seconds: float, rate: float = 100.0) -> np.ndarray:
    return RNG.normal(size=round(seconds * rate)).astype(np.float32) * 1000


def test_components_of_one_instrument_are_one_record(mseed: Make, tmp_path: Path) -> None:
    x = [noise(30) for _ in range(3)]
    mseed("day/z.mseed", {"Z": x[0]})
    mseed("day/deeper/h.mseed", {"1": x[1], "2": x[2]})
    found = Recordings(tmp_path / "day")
    (stretch,) = found.stretches
    assert (stretch.station, stretch.samples, stretch.begin) == ("XX.AAA", 3000, START)
    np.testing.assert_array_equal(found.read(stretch, START + 5, 1000, 100.0), np.stack(x)[:, 500:1500])


def test_sac_is_read_alike(mseed: Make, tmp_path: Path) -> None:
    x = noise(30)
    for letter in "ZNE":
        mseed(f"sac/AAA.HH{letter}", {letter: x}, kind="SAC")
    found = Recordings(tmp_path / "sac")
    (stretch,) = found.stretches
    np.testing.assert_array_equal(found.read(stretch, stretch.begin, 3000, 100.0), np.stack([x] * 3))


def test_a_record_is_cut_where_a_component_has_a_gap(mseed: Make, tmp_path: Path) -> None:
    x = noise(100)
    mseed("g/z.mseed", {"Z": x})
    mseed("g/n1.mseed", {"N": x[:4000]})
    mseed("g/n2.mseed", {"N": x[5000:]}, start="2014-04-01T00:00:50")
    found = Recordings(tmp_path / "g")
    spans = [(round(s.begin - START, 2), s.samples) for s in found.stretches]
    assert spans == [(0, 4000), (40, 1000), (50, 5000)]
    both, alone, after = (found.read(s, s.begin, s.samples, 100.0) for s in found.stretches)
    np.testing.assert_array_equal(both[:2], np.stack([x[:4000]] * 2))
    np.testing.assert_array_equal(alone[0], x[4000:5000])
    assert not alone[1:].any()
    np.testing.assert_array_equal(after[1], x[5000:])


def test_what_is_not_a_number_is_a_gap_or_bridged_and_counted(mseed: Make, tmp_path: Path) -> None:
    x = noise(100) + 1e6  # far from zero, so that a zero among the samples would stand out
    holed = x.copy()
    holed[2000], holed[6000:6050], holed[-1], holed[7001:7003] = np.nan, np.inf, np.nan, np.nan
    mseed("g/z.mseed", {"Z": holed})
    mseed("g/n.mseed", {"N": x}, station="BBB")
    found = Recordings(tmp_path / "g")
    spans = [(s.station, round(s.begin - START, 2), s.samples) for s in found.stretches]
    assert spans == [("XX.AAA", 0, 6000), ("XX.AAA", 60.5, 3949), ("XX.BBB", 0, 10000)]
    assert found.notes == ["XX.AAA..HHZ: 54 samples are not numbers: 51 left out as gaps, 3 bridged by a line"]
    one, two = (found.read(s, s.begin, s.samples, 100.0)[0] for s in found.stretches[:2])
    np.testing.assert_array_equal(np.delete(one, 2000), np.delete(x[:6000], 2000))
    assert one[2000] == pytest.approx((x[1999] + x[2001]) / 2, rel=1e-6)
    np.testing.assert_allclose(two[951:953], x[7000] + (x[7003] - x[7000]) * np.array([1, 2]) / 3, rtol=1e-6)
    mseed("nan/z.mseed", {"Z": np.full(3000, np.nan)})
    with pytest.raises(VqtoolError, match="1: no samples that are numbers") as caught:
        Recordings(tmp_path / "nan")
    assert "there are no seismograms" in str(caught.value)


def test_masked_samples_are_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from obspy import Stream, Trace

    x = noise(60) + 1e6
    masked = np.ma.masked_array(x, mask=np.zeros(len(x), dtype=bool))
    masked[3000:3100] = np.ma.masked
    head = {"network": "XX", "station": "AAA", "channel": "HHZ", "sampling_rate": 100.0}
    stream = Stream([Trace(masked, head)])
    for module in (recordings, tracks):
        monkeypatch.setattr(module, "waveforms", lambda *_, **how: stream.slice(how.get("starttime")))
    (tmp_path / "a.dat").touch()
    found = Recordings(tmp_path / "a.dat")
    assert [s.samples for s in found.stretches] == [3000, 2900]
    np.testing.assert_array_equal(found.read(found.stretches[1], 31.0, 2900, 100.0)[0], x[3100:])


def test_a_sample_missing_between_two_files_is_not_a_zero(mseed: Make, tmp_path: Path) -> None:
    x = noise(60) + 1e6
    mseed("t/1.mseed", {"Z": x[:3000], "N": x})
    mseed("t/2.mseed", {"Z": x[3001:]}, start="2014-04-01T00:00:30.010")
    found = Recordings(tmp_path / "t")
    (stretch,) = found.stretches
    read = found.read(stretch, stretch.begin, 6000, 100.0)
    assert read[0, 3000] == pytest.approx((x[2999] + x[3001]) / 2, rel=1e-6)
    np.testing.assert_array_equal(read[1], x)


def test_files_that_follow_each_other_are_one_record(mseed: Make, tmp_path: Path) -> None:
    x = noise(60)
    mseed("2014/XX/AAA/HHZ.D/XX.AAA..HHZ.D.2014.091", {"Z": x[:3000]})
    mseed("2014/XX/AAA/HHZ.D/XX.AAA..HHZ.D.2014.092", {"Z": x[3000:]}, start="2014-04-01T00:00:30")
    found = Recordings(tmp_path / "2014")
    (stretch,) = found.stretches
    np.testing.assert_array_equal(found.read(stretch, START + 25, 1000, 100.0)[0], x[2500:3500])


def test_components_that_begin_a_few_milliseconds_apart(mseed: Make, tmp_path: Path) -> None:
    mseed("j/z.mseed", {"Z": noise(30)})
    mseed("j/n.mseed", {"N": noise(30)}, start="2014-04-01T00:00:00.013")
    assert [s.samples for s in Recordings(tmp_path / "j").stretches] in ([3000], [3001])


@pytest.mark.parametrize("rate", [125.0, 200.0, 50.0, 40.0])
def test_resampled_alike_wherever_reading_begins(mseed: Make, rate: float) -> None:
    t = np.arange(round(60 * rate)) / rate
    path = mseed("r.mseed", {"Z": 1000 * np.sin(2 * np.pi * 3 * t) + 700}, rate=rate)
    found = Recordings(path)
    (stretch,) = found.stretches
    for begin in (0.0, 12.34, 33.01):
        read = found.read(stretch, stretch.begin + begin, 2000, 100.0)[0]
        fine = begin + np.arange(2000) / 100
        inner = slice(50, -50)
        np.testing.assert_allclose(read[inner], (1000 * np.sin(6 * np.pi * fine) + 700)[inner], atol=8)


def test_what_is_not_a_seismogram_is_counted(mseed: Make, tmp_path: Path) -> None:
    mseed("m/z.mseed", {"Z": noise(30)})
    mseed("m/q.mseed", {"F": noise(30)})
    (tmp_path / "m" / "broken.mseed").write_bytes(b"\0" * 700)
    (tmp_path / "m" / "notes.txt").write_text("not asked")
    with pytest.raises(VqtoolError, match="ground motion is recorded by 1 channel of `m`: `HHF`"):
        Recordings(tmp_path / "m")
    assert Recordings(tmp_path / "m", {}).skipped == {
        "of no format that ObsPy knows": 1,
        "not in `data.components`, and no SEED code of ground motion (`HHF`)": 1,
    }
    (tmp_path / "empty").mkdir()
    with pytest.raises(VqtoolError, match="there are no seismograms"):
        Recordings(tmp_path / "empty")
    with pytest.raises(VqtoolError, match="there is no file or folder"):
        Recordings(tmp_path / "nowhere")


def test_pieces_are_complete_and_disjoint(mseed: Make) -> None:
    (stretch,) = Recordings(mseed("p.mseed", {"Z": noise(130)})).stretches
    parts = list(pieces(stretch, 30))
    assert sum(p.samples for p in parts) == stretch.samples
    assert [p.samples for p in parts] == [3000, 3000, 3000, 4000]


def test_a_data_set_of_records_with_picks(mseed: Make, tmp_path: Path) -> None:
    lines = ["station_id,phase_time,phase_type"]
    for k in range(6):
        x = motion(k, samples=20000, p=9000, s=9400)
        mseed(f"set/{k}.mseed", dict(zip("ZNE", x, strict=True)), station=f"S{k}")
        lines += [f"XX.S{k}..HH,2014-04-01T00:01:30,P", f"XX.S{k}..HH,2014-04-01T00:01:34,S"]
    table = tmp_path / "set" / "picks.csv"
    table.write_text("\n".join([*lines, "XX.S0,2014-04-01T00:01:40,P", "ZZ.S0,2014-04-01T00:01:40,P"]))
    data = Miniseed(path=tmp_path / "set", picks=table, window=1024)
    assert "6 of 8 picked P arrivals lie in the records" in data.notes
    assert data.spec.metadata["skipped"] == {"a P pick within 60 s of the one before it": 1}
    stations = []
    for split in ("train", "valid", "test"):
        rows = data.rows(split)
        batch = rows.__getitems__(list(range(len(rows))))
        stations.append({t.station for t in rows.traces})
        assert {0, 1, 2, 3} <= set(batch["phase"].unique().tolist())
        event = next(t for t in rows.traces if not math.isnan(t.p))
        assert (event.p, event.s, event.samples) == (3000, 3400, 9001)
        covered = sum(t.samples for t in rows.traces if t.station == event.station)
        assert abs(covered - 20000) < 5
    assert sum(map(len, stations)) == 6


def test_picks_from_tables_and_quakeml(tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text(
        "network,station,time,phase,other\nXX,A,2014-04-01 00:00:10.5,Pg,1\n,B,1396310420,S,2\nXX,A,x,IAML,3\n"
    )
    assert read_picks(table) == [Pick("XX.A", "P", START + 10.5), Pick("B", "S", START + 20)]
    from obspy import UTCDateTime
    from obspy.core.event import Catalog, Event, WaveformStreamID
    from obspy.core.event import Pick as EventPick

    made = [
        EventPick(time=UTCDateTime(START + i), phase_hint=hint, waveform_id=WaveformStreamID("XX", "A"))
        for i, hint in enumerate(["Pn", "IAML", "Sg"])
    ]
    Catalog([Event(picks=made)]).write(str(tmp_path / "e.qml"), format="QUAKEML")
    assert read_picks(tmp_path / "e.qml") == [Pick("XX.A", "P", START), Pick("XX.A", "S", START + 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column for the station, time, phase"),
        ("station,time,phase\nA,noon,P\n", "`noon` is no time"),
        ("station,time,phase\nA,nan,P\n", "`nan` is no time"),
        ("station,time,phase\nA,,P\n", "`` is no time"),
        ("station,time,phase\nA,2014-04-01T00:00:00,IAML\n", "no picks of P or S"),
    ],
)
def test_bad_tables_are_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(VqtoolError, match=message):
        read_picks(tmp_path / "p.csv")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_picks_from_tables_with_other_separators(tmp_path: Path, separator: str) -> None:
    lines = ["station_id,phase_time,phase_type", "XX.A..HH,2014-04-01T00:00:10.5,P", "XX.A..HH,2014-04-01T00:00:20,S"]
    (tmp_path / "p.csv").write_text("\n".join(lines).replace(",", separator))
    assert read_picks(tmp_path / "p.csv") == [Pick("XX.A", "P", START + 10.5), Pick("XX.A", "S", START + 20)]


@pytest.mark.parametrize(
    ("picked", "expected"),
    [
        ([("P", 100), ("P", 103), ("S", 110)], [(100, 110)]),  # Pn and Pg
        ([("P", 100), ("P", 100.4), ("P", 103), ("S", 110), ("S", 111)], [(100, 110)]),
        ([("P", 100), ("P", 107), ("S", 110)], [(100, None), (107, 110)]),  # nearer to the S: an event of its own
        ([("P", 100), ("P", 120), ("S", 160)], [(100, None), (120, 160)]),  # too far apart for one earthquake
        ([("P", 90), ("S", 95), ("P", 100), ("P", 102), ("S", 109)], [(90, 95), (100, 109)]),
        ([("P", 100), ("P", 103)], [(100, None), (103, None)]),
    ],
)
def test_several_p_picks_of_one_earthquake_keep_its_s(
    picked: list[tuple[str, float]], expected: list[tuple[float, float | None]]
) -> None:
    found = arrivals([Pick("A", phase, time) for phase, time in picked])
    assert [(p, None if math.isnan(s) else s) for p, s in found] == expected


def test_a_second_p_pick_or_the_same_line_twice_changes_no_trace(mseed: Make, tmp_path: Path) -> None:
    path = mseed("d/a.mseed", dict(zip("ZNE", motion(0, 20000, 9000, 9900), strict=True)))
    read = {}
    for name, times in {"one": "P30 S39", "two": "P30 P33 S39", "twice": "P30 P30 S39"}.items():
        lines = [f"XX.AAA,2014-04-01T00:01:{word[1:]},{word[0]}" for word in times.split()]
        (tmp_path / f"{name}.csv").write_text("\n".join(["station_id,phase_time,phase_type", *lines]))
        records = ContinuousRecords(path, 100.0, tmp_path / f"{name}.csv")
        read[name] = (repr(records.traces), records.notes, dict(records.skipped))
    assert "p=3000.0, s=3900.0" in read["one"][0]
    assert "1 of 1 picked P arrivals lie in the records" in read["one"][1]
    assert read["two"] == read["one"]
    assert read["twice"] == read["one"]


def test_arrivals_of_a_station() -> None:
    picks = [Pick("A", phase, float(t)) for t, phase in enumerate("SPSSPPS")]
    result = arrivals(picks)
    assert [p for p, _ in result] == [1, 4, 5]
    assert result[0][1] == 2
    assert math.isnan(result[1][1])
    assert result[2][1] == 6
    mixed = [Pick("XX.A", "P", 0.0), Pick("A", "P", 1.0), Pick("YY.A", "P", 2.0), Pick("XX.B", "P", 3.0)]
    assert [p.time for p in of_station(mixed, "XX.A")] == [0, 1]
    assert [p.time for p in of_station(mixed, "A")] == [0, 1, 2]


def test_a_rate_far_away_is_skipped_and_named(mseed: Make, tmp_path: Path) -> None:
    """A header that says 0.1 Hz would turn some bytes into days of samples."""
    mseed("f/z.mseed", {"Z": noise(30)})
    mseed("f/slow.mseed", {"Z": noise(30)}, rate=0.1, station="BBB")
    mseed("f/fast.mseed", {"Z": noise(3)}, rate=20_000, station="CCC")
    source = ContinuousRecords(tmp_path / "f", 100.0, None)
    assert {trace.station for trace in source.traces} == {"XX.AAA"}
    far = "its sampling rate of 20000 Hz is more than 100 times away from 100 Hz"
    slow = "slower than 10 Hz (`HHZ`)"
    assert source.skipped == {far: 1, slow: 1}
    spec = DataSpec({"x": Field((3, 512), "signal")}, sample_rate=100.0, metadata={"frame": 32})
    notes = [note for piece in SeismogramFiles(spec).open(tmp_path / "f") for note in piece.notes]
    assert notes == [f"skipped 1: {slow}", f"skipped 1 record: {far} (`XX.CCC..HH`)"]


def test_a_model_of_slow_records_reads_them(mseed: Make) -> None:
    path = mseed("s.mseed", {"Z": noise(300)}, rate=1.0)
    assert ContinuousRecords(path, 1.0, None).traces[0].samples == 300
    with pytest.raises(VqtoolError, match=r"no seismograms in .* \(1: slower than 10 Hz \(`HHZ`\)\)"):
        ContinuousRecords(path, 20.0, None)
