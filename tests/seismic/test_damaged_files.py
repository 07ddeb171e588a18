"""Seismograms, picks and SeisBench folders that are damaged, packed or ambiguous: one error that names the file."""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.seismic.conftest import Make
from vqtool.errors import VqtoolError
from vqtool_seismic.picks import read_picks
from vqtool_seismic.recordings import Recordings
from vqtool_seismic.seisbench_folder import SeisBenchFolder

X = np.random.default_rng(0).normal(size=3000).astype(np.float32) * 1000


def test_a_name_with_brackets_is_a_name(mseed: Make) -> None:
    assert Recordings(mseed("day[1]*.mseed", {"Z": X})).stretches[0].samples == 3000


def test_a_packed_file_is_refused_with_what_to_do(mseed: Make, tmp_path: Path) -> None:
    (tmp_path / "a.mseed.gz").write_bytes(gzip.compress(mseed("a.mseed", {"Z": X}).read_bytes()))
    with pytest.raises(VqtoolError, match=r"`a\.mseed\.gz` is of no format that ObsPy knows") as caught:
        Recordings(tmp_path / "a.mseed.gz")
    assert "unpack the gzip file" in str(caught.value.hint)
    np.savez(tmp_path / "arrays.npz", x=np.zeros((3, 100)))
    with pytest.raises(VqtoolError, match="is of no format that ObsPy knows") as caught:
        Recordings(tmp_path / "arrays.npz")
    assert "unpack" not in str(caught.value.hint)


def test_damage_that_only_reading_finds_names_the_file(mseed: Make) -> None:
    path = mseed("a.mseed", {"Z": X})
    whole = path.read_bytes()
    found = Recordings(path)
    (stretch,) = found.stretches
    path.write_bytes(b"\x00" * len(whole))
    with pytest.raises(VqtoolError, match=r"`a\.mseed` is (damaged|of no format)"):
        found.read(stretch, stretch.begin, 3000, 100.0)


def test_what_obspy_warns_of_is_counted_by_name(mseed: Make, capfd: pytest.CaptureFixture[str]) -> None:
    path = mseed("a.mseed", {"Z": X})
    path.write_bytes(path.read_bytes() + b"\x01" * 700)
    skipped = dict(Recordings(path).skipped)
    assert len(skipped) == 1
    assert "`a.mseed` is damaged in 6 places, the first: Not a SEED record" in next(iter(skipped))
    assert "Warning" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("rate", [1e-7, 1e8])
def test_a_sampling_rate_that_cannot_be(mseed: Make, rate: float) -> None:
    with pytest.raises(VqtoolError, match=r"`a\.sac` is damaged: its sampling rate is"):
        Recordings(mseed("a.sac", {"Z": X}, rate=rate, kind="SAC"))


@pytest.mark.parametrize("begin", [-3.1e12, 3e11])
def test_a_time_that_no_date_can_hold(mseed: Make, begin: float) -> None:
    path = mseed("a.sac", {"Z": X}, kind="SAC")
    content = bytearray(path.read_bytes())
    content[20:24] = struct.pack("<f", begin)  # B, the seconds from the header's time to the first sample
    path.write_bytes(content)
    with pytest.raises(VqtoolError, match=r"`a\.sac` is damaged: its time is .* in no year"):
        Recordings(path)


def test_picks_in_tables_and_catalogues(tmp_path: Path) -> None:
    table = tmp_path / "picks.csv"
    table.write_text("station,time,time,phase\nXX.A,0,1,P\n")
    with pytest.raises(VqtoolError, match=r"two columns of `picks\.csv` are called `time`"):
        read_picks(table)
    table.write_text("station,time,phase\nXX.A,0,P\n" + "x" * 200_000 + ",0,P\n")
    with pytest.raises(VqtoolError, match=r"`picks\.csv` is not a table that can be read: field larger"):
        read_picks(table)
    table.write_bytes(b"station,time,phase\nXX.A\xff,0,P\n")
    with pytest.raises(VqtoolError, match=r"`picks\.csv` is not a table that can be read"):
        read_picks(table)
    (tmp_path / "picks.xml").write_text("<q:quakeml xmlns:q='http://quakeml.org/xmlns/quakeml/1.2'><a>")
    with pytest.raises(VqtoolError, match=r"`picks\.xml` is"):
        read_picks(tmp_path / "picks.xml")


def test_two_columns_of_one_name_in_the_metadata(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "set")
    lines = (copy / "metadata.csv").read_text().split("\n", 1)
    (copy / "metadata.csv").write_text(lines[0] + ",trace_name\n" + lines[1])
    with pytest.raises(VqtoolError, match=r"two columns of `metadata\.csv` are called `trace_name`"):
        SeisBenchFolder(copy, 100.0)


def numbers(file: h5py.File, form: str) -> None:
    array = file["data/bucket0"][()]
    del file["data/bucket0"]
    file["data/bucket0"] = array.astype(form)


def group(file: h5py.File) -> None:
    del file["data"]
    file["data"] = np.zeros(3)


def bomb(file: h5py.File) -> None:
    del file["data/bucket0"]
    file.create_dataset("data/bucket0", (20, 3, 10**11), "f4", chunks=(1, 3, 4096))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: numbers(file, "c8"), "`data/bucket0` holds complex64, not real numbers"),
        (lambda file: numbers(file, "S4"), "`data/bucket0` holds |S4, not real numbers"),
        (group, "there is no group `data`"),
        (bomb, r"`data/bucket0` has the shape \(20, 3, 100000000000\): more than the file can hold"),
    ],
)
def test_waveforms_of_another_kind(folder: Path, tmp_path: Path, damage: object, message: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "set")
    with h5py.File(copy / "waveforms.hdf5", "a") as file:
        damage(file)  # type: ignore[operator]
    with pytest.raises(VqtoolError, match=message) as caught:
        SeisBenchFolder(copy, 100.0)
    assert "waveforms.hdf5" in str(caught.value.where)


def test_bytes_turned_over_in_an_hdf5_file_are_one_error(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "set")
    whole = (copy / "waveforms.hdf5").read_bytes()
    refused = 0
    for at in [*range(0, 96, 16), *range(96, 1500, 100)]:
        (copy / "waveforms.hdf5").write_bytes(whole[:at] + b"\xff" * 8 + whole[at + 8 :])
        try:
            found = SeisBenchFolder(copy, 100.0)
            found.whole(found.traces[0])
        except VqtoolError:
            refused += 1
        except IndexError:
            assert not found.traces
    assert refused > 1


@pytest.mark.parametrize(
    ("rate", "why"), [("1e30", "a sampling rate that cannot be"), ("0.001", "more than 67,108,864 samples at 100 Hz")]
)
def test_rates_in_the_metadata_that_would_take_all_memory(folder: Path, tmp_path: Path, rate: str, why: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "set")
    text = (copy / "metadata.csv").read_text()
    (copy / "metadata.csv").write_text(text.replace(",100.0,", f",{rate},", 1))
    found = SeisBenchFolder(copy, 100.0)
    assert found.skipped == {why: 1}
    assert len(found.traces) == 39
