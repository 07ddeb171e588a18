"""Small seismic data made for a test: SeisBench folders with earthquakes at known samples, and miniSEED files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

Make = Callable[..., Path]
RATE = 100.0


def motion(seed: int, samples: int = 3000, p: int | None = 1000, s: int | None = 1300) -> np.ndarray:
    """[3, samples] noise, and from P and S on louder shaking that dies away, in counts about an offset."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, samples))
    t = np.arange(samples)
    for onset, size in ((p, 20.0), (s, 60.0)):
        if onset is not None:
            x += size * np.exp(-np.maximum(t - onset, 0) / 200) * (t >= onset) * rng.normal(size=(3, samples))
    return (100 * x + 5000).astype(np.float32)


def lines_of(stations: int, per_station: int, bucket: str = "bucket0", samples: int = 3000) -> list[dict[str, Any]]:
    """Metadata of `stations` x `per_station` traces, each with a noise row cut from its first 800 samples."""
    made = []
    for index in range(stations * per_station):
        row = {
            "trace_name": f"{bucket}${index},:3,:{samples}",
            "station_network_code": "XX",
            "station_code": f"S{index // per_station:02d}",
            "trace_sampling_rate_hz": RATE,
            "trace_p_arrival_sample": 1000.0,
            "trace_s_arrival_sample": 1300.0,
            "trace_category": "earthquake_local",
        }
        noise = {"trace_name": f"{bucket}${index},:3,:800", "trace_category": "noise"}
        made += [row, row | noise | {"trace_p_arrival_sample": "", "trace_s_arrival_sample": ""}]
    return made


def write_chunk(folder: Path, waves: dict[str, np.ndarray], rows: list[dict[str, Any]], ending: str = "",
                **form: Any) -> None:  # fmt: skip
    """One metadata and one waveform file."""
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"waveforms{ending}.hdf5", "w") as file:
        for name, wave in waves.items():
            file[f"data/{name}"] = wave
        for name, value in ({"dimension_order": "NCW", "component_order": "ZNE"} | form).items():
            file[f"data_format/{name}"] = value
    with (folder / f"metadata{ending}.csv").open("w", newline="") as file:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten stations with two traces each, and a noise row of each; no split."""
    path = tmp_path_factory.mktemp("seisbench") / "set"
    waves = np.stack([motion(i) for i in range(20)])
    write_chunk(path, {"bucket0": waves}, lines_of(10, 2))
    return path


@pytest.fixture
def mseed(tmp_path: Path) -> Make:
    """Writes records: `mseed("a.mseed", {"Z": x, "N": x, "E": x}, start=..., rate=..., station=...)`."""
    from obspy import Stream, Trace, UTCDateTime

    def write(name: str, channels: dict[str, np.ndarray], *, start: str = "2014-04-01T00:00:00", rate: float = RATE,
              station: str = "AAA", network: str = "XX", kind: str = "MSEED") -> Path:  # fmt: skip
        traces = []
        for letter, samples in channels.items():
            head = {"network": network, "station": station, "channel": f"HH{letter}", "sampling_rate": rate,
                    "starttime": UTCDateTime(start)}  # fmt: skip
            traces.append(Trace(np.asarray(samples, dtype=np.float32), head))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Stream(traces).write(str(path), format=kind)
        return path

    return write
