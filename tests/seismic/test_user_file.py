"""Tokens of a day: every token once, at its time, and the same however the record is cut and read."""

from __future__ import annotations

import csv
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.seismic.conftest import Make, lines_of, motion, write_chunk
from vqtool.api import CodedPiece, DataSpec, Field
from vqtool.errors import VqtoolError
from vqtool_seismic import user_file
from vqtool_seismic.user_file import SeismogramFiles

SPEC = DataSpec({"x": Field((3, 512), "signal")}, sample_rate=100.0, metadata={"frame": 32, "level": 1024})
MODEL = {"model": "abc", "codebook_sizes": [1000, 7]}


def coded(path: Path, spec: DataSpec = SPEC) -> Iterator[CodedPiece]:
    """Codes that encode the loudness of their 32 samples, a local function of the signal."""
    for piece in SeismogramFiles(spec).open(path):
        loud = piece.batch["x"].unflatten(-1, (-1, 32)).square().mean((1, 3))
        codes = torch.stack([(100 * loud).long().clamp_max(999), torch.zeros_like(loud).long()], -1)
        yield CodedPiece(codes, torch.zeros(len(codes), 0), {}, piece.metadata)


@given(
    samples=st.integers(256, 5000),
    length=st.sampled_from([256, 512, 500]),
    frame=st.sampled_from([1, 20, 32]),
    offset=st.integers(-(10**12), 10**12),
)
def test_windows_keep_every_sample_once(samples: int, length: int, frame: int, offset: int) -> None:
    plan = list(user_file.windows(samples, length, frame, offset))
    head = plan[0][0]
    assert plan[0][1] == head < frame
    assert plan[-1][2] == samples
    for (begin, low, high), (_, after, _) in zip(plan, [*plan[1:], (0, samples, 0)], strict=True):
        assert high == after
        assert (begin + offset) % frame == 0
        assert low < high
        assert begin <= low or begin == head
        assert high <= begin + length + frame or begin + length > samples - frame
    hop = max(1, length // 2 // frame) * frame
    for begin, low, high in plan[1:-1]:  # away from a window's edges by a quarter of it, nearly
        assert low - begin >= length // 4 - frame
        assert begin + length - high >= length // 4 - frame
        assert (begin + offset) % hop == 0


def test_cuts_of_one_record_have_the_same_tokens_away_from_the_cut(mseed: Make, tmp_path: Path) -> None:
    x = motion(5, 12000, 6000, 6400)
    results = []
    for begin, end in ((0, 12000), (1234, 12000), (0, 9876)):
        start = f"2014-04-01T00:00:{begin / 100:06.3f}"
        path = mseed("c.mseed", dict(zip("ZNE", x[:, begin:end], strict=True)), start=start)
        SeismogramFiles(SPEC).save_codes(tmp_path / "c.csv", coded(path), MODEL)
        with (tmp_path / "c.csv").open() as file:
            results.append({row["time"]: row["code0"] for row in csv.DictReader(file)})
    whole, late, early = results
    assert len(late) == (12000 - 1234) // 32
    assert whole.keys() >= late.keys()
    times = list(whole)
    inner = slice((1234 + 512 + 1024) // 32, None)
    assert [late[time] for time in times[inner]] == [whole[time] for time in times[inner]]
    inner = slice(None, (9876 - 512 - 1024) // 32)
    assert [early[time] for time in times[inner]] == [whole[time] for time in times[inner]]


def test_every_token_once_and_at_its_time(mseed: Make, tmp_path: Path) -> None:
    x = motion(0, 9000, 4000, 4500)
    path = mseed("d.mseed", dict(zip("ZNE", x, strict=True)))
    spec = replace(SPEC, metadata={"frame": 32, "level": 9000})  # loudness beside that of the whole record
    SeismogramFiles(spec).save_codes(tmp_path / "t.csv", coded(path, spec), MODEL)
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9000 // 32
    assert rows[0] == {"station": "XX.AAA", "record": "XX.AAA..HH 2014-04-01T00:00:00.000Z",
                       "time": "2014-04-01T00:00:00.000Z", "code0": rows[0]["code0"], "code1": "0"}  # fmt: skip
    assert rows[100]["time"] == "2014-04-01T00:00:32.000Z"
    loud = np.array([int(row["code0"]) for row in rows])
    assert abs(int(np.argmax(loud > 10 * (np.median(loud[:100]) + 1))) - 4000 // 32) <= 1


@pytest.mark.parametrize("start", ["2014-04-01T00:00:00", "2014-04-01T00:00:03.170"])
@pytest.mark.parametrize("samples", [300, 511, 512, 513, 1024, 1500, 5003])
def test_tokens_do_not_depend_on_how_much_is_read_at_a_time(
    mseed: Make, tmp_path: Path, samples: int, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waves = dict(zip("ZNE", motion(1, samples, samples // 2, samples // 2 + 9), strict=True))
    path, head = mseed("d.mseed", waves, start=start), 0 if start.endswith("00:00") else -317 % 32
    results = []
    for windows in (1, 3, 1000):
        monkeypatch.setattr(user_file, "WINDOWS", windows)
        SeismogramFiles(SPEC).save_codes(tmp_path / "t.npz", coded(path), MODEL)
        results.append(dict(np.load(tmp_path / "t.npz")))
    assert len(results[0]["codes"]) == (samples - head) // 32
    for other in results[1:]:
        np.testing.assert_array_equal(results[0]["codes"], other["codes"])
        np.testing.assert_allclose(results[0]["time"], other["time"])
    np.testing.assert_allclose(np.diff(results[0]["time"]), 0.32, atol=1e-6)
    assert results[0]["seconds"] == pytest.approx(0.32)
    assert results[0]["codebook_sizes"].tolist() == [1000, 7]
    assert str(results[0]["model"]) == "abc"


def test_a_seisbench_folder_is_tokenised_trace_by_trace(folder: Path, tmp_path: Path) -> None:
    SeismogramFiles(SPEC).save_codes(tmp_path / "t.npz", coded(folder), MODEL)
    result = np.load(tmp_path / "t.npz")
    assert len(result["records"]) == 40
    assert result["time"].min() == 0  # no dates there: seconds from the begin
    assert np.bincount(result["record"]).tolist() == [3000 // 32, 800 // 32] * 20


def test_tokens_of_a_dated_trace_have_its_time(tmp_path: Path) -> None:
    result = {
        "2014/04/01 00:00:10.08": "2014-04-01T00:00:10.080Z",
        "2014-04-01T00:00:10.080000Z": "2014-04-01T00:00:10.080Z",
        "2014-04-01 02:00:10.08+02:00": "2014-04-01T00:00:10.080Z",
        "": "0.00",
        "the first of April": "0.00",
    }
    rows = [lines_of(1, 1)[0] | {"trace_name": f"bucket0${k}", "trace_start_time": t} for k, t in enumerate(result)]
    write_chunk(tmp_path / "set", {"bucket0": np.stack([motion(k) for k in range(len(rows))])}, rows)
    pieces = list(coded(tmp_path / "set"))
    notes = next(SeismogramFiles(SPEC).open(tmp_path / "set")).notes
    assert "1 traces have a trace_start_time that cannot be read: taken as undated" in notes
    SeismogramFiles(SPEC).save_codes(tmp_path / "t.csv", iter(pieces), MODEL)
    with (tmp_path / "t.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["time"] for row in found][:: 3000 // 32] == list(result.values())
    assert found[1]["time"] == "2014-04-01T00:00:10.400Z"


def test_a_sample_that_is_not_a_number_spoils_no_token_but_its_own(mseed: Make, tmp_path: Path) -> None:
    x = motion(3, 6000, 3000, 3300) + 1e6
    codes = []
    for holed in (False, True):
        if holed:
            x[:, 1500] = np.nan
        path = mseed("n.mseed", dict(zip("ZNE", x, strict=True)))
        notes = next(SeismogramFiles(SPEC).open(path)).notes
        assert any("1 samples are not numbers" in note for note in notes) == holed
        SeismogramFiles(SPEC).save_codes(tmp_path / "t.npz", coded(path), MODEL)
        codes.append(np.load(tmp_path / "t.npz")["codes"][:, 0])
    np.testing.assert_allclose(codes[1], codes[0], rtol=0.01, atol=1)


def test_what_is_left_out_is_reported_and_nothing_at_all_is_an_error(mseed: Make, tmp_path: Path) -> None:
    mseed("s/short.mseed", {"Z": motion(0, 200)[0]}, station="SHRT")
    with pytest.raises(VqtoolError, match="holds nothing to encode") as caught:
        list(coded(tmp_path / "s"))
    assert "2.0 s are less than half a window (" in (caught.value.hint or "")
    mseed("s/slow.mseed", {"Z": motion(0, 2000)[0]}, station="SLOW", rate=50)
    notes = [note for piece in SeismogramFiles(SPEC).open(tmp_path / "s") for note in piece.notes]
    assert "resampled 1 record from 50 to 100 Hz (`XX.SLOW..HH`)" in notes
    assert any("XX.SHRT" in note for note in notes)


def test_a_station_s_name_is_not_a_formula(mseed: Make, tmp_path: Path) -> None:
    pieces = list(coded(mseed("day.mseed", dict(zip("ZNE", motion(5, 1000, 300, 400), strict=True)))))
    pieces = [replace(piece, metadata=piece.metadata | {"station": "=1+1", "record": "@x 2014"}) for piece in pieces]
    SeismogramFiles(SPEC).save_codes(tmp_path / "t.csv", iter(pieces), MODEL)
    with (tmp_path / "t.csv").open() as file:
        assert {(row["station"], row["record"]) for row in csv.DictReader(file)} == {("'=1+1", "'@x 2014")}
    SeismogramFiles(SPEC).save_codes(tmp_path / "t.npz", iter(pieces), MODEL)
    assert np.load(tmp_path / "t.npz")["stations"].tolist() == ["=1+1"]


def test_only_known_endings_are_written(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match=r"\.csv or \.npz"):
        SeismogramFiles(SPEC).save_codes(tmp_path / "t.tokens", coded(folder), MODEL)


def test_memory_does_not_grow_with_the_record(mseed: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_file, "WINDOWS", 8)
    peaks = []
    for minutes in (4, 16):
        path = mseed(f"{minutes}.mseed", {"Z": np.random.default_rng(0).normal(size=6000 * minutes)})
        whole = path.stat().st_size
        for piece in coded(path):  # once before, so that what is imported does not count
            del piece
            break
        tracemalloc.start()
        for piece in coded(path):
            del piece
        peaks.append(tracemalloc.get_traced_memory()[1] - 2 * whole)  # ObsPy holds the file while it reads a part
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 200_000


@pytest.mark.parametrize("name", ["t.csv", "t.npz"])
def test_memory_does_not_grow_with_the_tokens(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_file, "IN_MEMORY", 1000)
    kept = {"record": "r", "station": "s", "start": 1e9, "samples": 10**9, "rate": 100.0}

    def pieces(count: int) -> Iterator[CodedPiece]:
        for number in range(count):
            plan = [(number * 512, number * 512, number * 512 + 512)]
            yield CodedPiece(torch.full((1, 16, 2), number % 999), torch.zeros(1, 0), {}, kept | {"windows": plan})

    SeismogramFiles(SPEC).save_codes(tmp_path / name, pieces(3), MODEL)
    peaks = []
    for count in (1000, 3000):
        tracemalloc.start()
        SeismogramFiles(SPEC).save_codes(tmp_path / name, pieces(count), MODEL)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 60_000  # as a whole, some 20 bytes for each of 32 000 tokens
    if name == "t.npz":
        made = dict(np.load(tmp_path / name))
        np.savez(tmp_path / "again.npz", **made)
        assert (tmp_path / "again.npz").read_bytes() == (tmp_path / name).read_bytes()
        assert made["codes"][:, 0].tolist() == np.repeat(np.arange(3000) % 999, 16).tolist()
