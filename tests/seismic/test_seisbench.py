"""SeisBench folders: blocks, chunks, layouts, rates; what is skipped is counted; reading by other processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.seismic.conftest import lines_of, motion, write_chunk
from vqtool.errors import VqtoolError
from vqtool_seismic.data.seisbench import Seisbench
from vqtool_seismic.seisbench_folder import Place, SeisBenchFolder

WAVES = np.stack([motion(i) for i in range(8)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain.name", Place("plain.name", None, ())),
        ("bucket0$5,:3,:1200", Place("bucket0", 5, (slice(None, 3), slice(None, 1200)))),
        ("b$0", Place("b", 0, ())),
        ("b$2,1:3,10:20:2", Place("b", 2, (slice(1, 3), slice(10, 20, 2)))),
        ("b$x", None),
        ("b$1,5", None),
        ("", None),
    ],
)
def test_trace_names(name: str, expected: Place | None) -> None:
    assert Place.of(name) == expected


def test_a_row_of_a_block_is_cut_as_its_name_says(tmp_path: Path) -> None:
    write_chunk(tmp_path, {"bucket0": WAVES}, lines_of(4, 2))
    read = SeisBenchFolder(tmp_path, 100.0)
    assert len(read.traces) == 16
    np.testing.assert_array_equal(read.whole(read.traces[4]), WAVES[2])
    np.testing.assert_array_equal(read.whole(read.traces[5]), WAVES[2, :, :800])
    later = lines_of(1, 1)[0] | {"trace_name": "bucket0$3,:3,500:1500"}
    write_chunk(tmp_path / "other", {"bucket0": WAVES}, [later])
    other = SeisBenchFolder(tmp_path / "other", 100.0)
    np.testing.assert_array_equal(other.whole(other.traces[0]), WAVES[3, :, 500:1500])
    assert read.traces[4].key == read.traces[5].key  # so that they never part
    assert read.traces[5].noise
    assert not read.traces[4].noise


@pytest.mark.parametrize(("components", "want"), [("ENZ", [2, 1, 0]), ("Z12", [0, 1, 2]), ("21Z", [2, 1, 0])])
@pytest.mark.parametrize("order", ["NCW", "NWC"])
def test_components_and_axes_in_any_order(tmp_path: Path, components: str, want: list[int], order: str) -> None:
    rows = [row | {"trace_name": row["trace_name"].split(",")[0]} for row in lines_of(4, 2)]
    stored = WAVES if order == "NCW" else WAVES.transpose(0, 2, 1)
    write_chunk(tmp_path, {"bucket0": stored}, rows, dimension_order=order, component_order=components)
    read = SeisBenchFolder(tmp_path, 100.0)
    np.testing.assert_array_equal(read.whole(read.traces[0]), WAVES[0][want])


def test_whole_data_sets_and_vertical_only_traces(tmp_path: Path) -> None:
    rows = [{"trace_name": "one", "trace_dt_s": 0.01}, {"trace_name": "two", "trace_dt_s": 0.01}]
    write_chunk(tmp_path, {"one": WAVES[0], "two": WAVES[1, :1]}, rows, dimension_order="CW")
    read = SeisBenchFolder(tmp_path, 100.0)
    np.testing.assert_array_equal(read.whole(read.traces[0]), WAVES[0])
    alone = read.whole(read.traces[1])
    np.testing.assert_array_equal(alone[0], WAVES[1, 0])
    assert not alone[1:].any()


def test_what_is_not_a_number_is_bridged(tmp_path: Path) -> None:
    wave = WAVES[0] + 1e6
    wave[0, 700:703], wave[2] = (np.nan, np.inf, np.nan), np.nan
    write_chunk(tmp_path, {"one": wave}, [{"trace_name": "one", "trace_dt_s": 0.01}], dimension_order="CW")
    read = SeisBenchFolder(tmp_path, 100.0)
    found = read.whole(read.traces[0])
    line = wave[0, 699] + (wave[0, 703] - wave[0, 699]) * np.arange(1, 4) / 4
    np.testing.assert_allclose(found[0, 700:703], line, rtol=1e-6)
    np.testing.assert_array_equal(found[1], wave[1])
    assert not found[2].any()


def test_chunks_are_one_set(tmp_path: Path) -> None:
    for ending, at in (("_a", 0), ("_b", 4)):
        write_chunk(tmp_path, {"bucket0": WAVES[at : at + 4]}, lines_of(2, 2), ending)
    (tmp_path / "chunks").write_text("_a\n_b\n")
    listed = SeisBenchFolder(tmp_path, 100.0)
    (tmp_path / "chunks").unlink()
    found = SeisBenchFolder(tmp_path, 100.0)
    assert [t.key for t in listed.traces] == [t.key for t in found.traces]
    assert len({t.key for t in listed.traces}) == 8  # a block of one name in two chunks is not the same one
    np.testing.assert_array_equal(listed.whole(listed.traces[8]), WAVES[4])


def test_another_rate_is_resampled_and_reported(tmp_path: Path) -> None:
    t = np.arange(1200) / 20
    slow = np.stack([np.sin(2 * np.pi * f * t) for f in (0.5, 1.0, 2.0)]).astype(np.float32)[None]
    row = {"trace_name": "b$0", "trace_sampling_rate_hz": 20, "trace_p_arrival_sample": 200}
    write_chunk(tmp_path, {"b": slow}, [row])
    read = SeisBenchFolder(tmp_path, 100.0)
    trace = read.traces[0]
    assert read.notes == ["1 traces are resampled from 20 to 100 Hz"]
    assert trace.p == 1000  # the same second
    assert trace.samples == 5 * 1199 + 1
    fine = np.arange(trace.samples) / 100
    inner = slice(300, -300)
    np.testing.assert_allclose(read.whole(trace)[0, inner], np.sin(np.pi * fine)[inner], atol=0.01)


def test_what_is_skipped_is_counted_with_its_reason(tmp_path: Path) -> None:
    good = lines_of(5, 1)
    bad = [
        good[0] | {"trace_name": "nowhere$0"},
        good[0] | {"trace_name": "bucket0$99,:3,:100"},
        good[0] | {"trace_name": ""},
        good[0] | {"trace_sampling_rate_hz": ""},
        good[0] | {"trace_name": "flat$0"},
        good[0] | {"trace_name": "bucket0$0,:3,:100"},
    ]
    write_chunk(tmp_path, {"bucket0": WAVES, "flat": np.zeros((1, 100))}, good + bad)
    data = Seisbench(path=tmp_path, window=512, split="station")
    result = data.spec.metadata["skipped"]
    assert result == {
        "no waveform of its trace_name": 2,
        "a trace_name that cannot be read": 1,
        "no sampling rate": 1,
        "an empty waveform, or one that is not components by samples": 1,
        "shorter than half a window": 1,
    }
    assert sum(f"{n} traces skipped: {why}" in data.notes for why, n in result.items()) == len(result)
    assert sum(len(data.rows(split)) for split in ("train", "valid", "test")) > 0


def test_bad_folders_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match=r"there is no `metadata\.csv`"):
        Seisbench(path=tmp_path)
    write_chunk(tmp_path, {"bucket0": WAVES}, lines_of(4, 2))
    (tmp_path / "waveforms.hdf5").write_bytes(b"no hdf5")
    with pytest.raises(VqtoolError, match="cannot be read as HDF5"):
        Seisbench(path=tmp_path)
    write_chunk(tmp_path, {"bucket0": WAVES}, [{"name": "bucket0$0"}])
    with pytest.raises(VqtoolError, match="no column `trace_name`"):
        Seisbench(path=tmp_path)
    write_chunk(tmp_path, {"bucket0": WAVES}, lines_of(4, 2), dimension_order="NXY")
    with pytest.raises(VqtoolError, match="`NXY`"):
        Seisbench(path=tmp_path)
    write_chunk(tmp_path, {"bucket0": WAVES[:, :, :100]}, [lines_of(1, 1, samples=100)[0]])
    with pytest.raises(VqtoolError, match="1: shorter than half a window"):
        Seisbench(path=tmp_path)


def _read(data: Seisbench, out: object) -> None:
    rows = data.rows("train")
    x = rows.__getitems__(list(range(len(rows))))["x"].numpy()
    source = data.held.source
    out.put((x, {pid for pid, _ in source._open} & {os.getpid()}))  # type: ignore[attr-defined]


def test_other_processes_read_the_same(folder: Path) -> None:
    data = Seisbench(path=folder, window=512)
    rows = data.rows("train")
    here = rows.__getitems__(list(range(len(rows))))["x"].numpy()  # the file is open now
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data)).rows("train")[3]["x"].numpy(), here[3])
    data.held._kept.clear()  # so that a child has to read
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=_read, args=(data, answers)) for _ in range(2)]
    for child in children:
        child.start()
    for _ in children:
        there, opened = answers.get(timeout=60)
        np.testing.assert_array_equal(there, here)
        assert opened  # the parent's file is not read: their places in it would get mixed up
    for child in children:
        child.join(timeout=60)


def test_memory_stays_bounded(folder: Path) -> None:
    data = Seisbench(path=folder, window=512)
    data.held.room = 3 * 3 * 3000 * 4  # three traces
    rows = data.rows("train")
    for index in range(len(rows)):
        rows[index]
        assert data.held._bytes <= data.held.room
    assert 0 < len(data.held._kept) < 8  # of 28 traces
