"""The commands on a small set: evaluate beside baselines, codes read by phase, a day file tokenised."""

from __future__ import annotations

import csv
import json
import re
import shlex
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.cli.run import within as vqtool
from tests.seismic.conftest import Make, motion

RECIPE = """
[data]
kind = "seisbench"
path = "{path}"
window = 1024
[encoder]
kind = "conv1d"
strides = [4, 4, 2]
dim = 16
width = 16
[quantizer]
kind = "product-gumbel"
codebook_size = 16
[context]
kind = "transformer"
width = 16
layers = 1
[train]
batch = 8
[evaluate]
splits = ["dev+test"]
metrics = ["codes", "phase-probe", "phase-agreement", "event-auc"]
baselines = ["log-spectrogram", "sta-lta"]
[[stage]]
name = "contrast"
task = "contrast"
steps = 8
losses = {{ info-nce = 1.0, hf = 0.1 }}
"""


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("seismic")
    (home / "set").symlink_to(folder)
    (home / "small.toml").write_text(RECIPE.format(path="set"))
    done = vqtool("train", home / "small.toml", "-o", home / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert "windows of 1024 samples at 100 Hz" in done.stderr  # what the data say of themselves
    (home / "run" / "said.json").write_text(done.stdout)
    return home / "run"


def test_held_out_figures_are_beside_the_baselines(run: Path) -> None:
    (split,) = json.loads((run / "said.json").read_text())["splits"].items()
    assert split[0] == "dev+test"
    scores = split[1]
    assert {"probe.macro_f1", "probe.features.macro_f1", "codes.nmi", "codes.ami", "codes.ami.rolled", "auc.event",
            "codes.ami.group1", "codes.perplexity.group0"} <= scores["model"].keys()  # fmt: skip
    assert "probe.features.macro_f1" in scores["baselines"]["log-spectrogram"]
    assert "auc.event" in scores["baselines"]["sta-lta"]


def test_codes_are_read_by_phase(run: Path, tmp_path: Path) -> None:
    done = vqtool("codes", run, "--out", tmp_path / "page", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["label"], result["labels"], result["group"], result["split"]) == (
        "phase",
        ["noise", "P", "S", "coda"],
        "station",
        "dev+test",
    )
    assert {"probe.macro_f1", "probe.folds.macro_f1", "codes.ami", "codes.ami.rolled.group1"} <= result[
        "figures"
    ].keys()
    trained = json.loads((run / "said.json").read_text())["splits"]["dev+test"]["model"]
    for name in ("probe.macro_f1", "codes.ami", "codes.nmi.group0"):
        assert result["figures"][name] == pytest.approx(trained[name], abs=1e-3)
    for book in result["codebooks"]:
        assert sum(sum(row["counts"].values()) for row in book["codes"]) == result["figures"]["tokens"]
    assert not any(
        row["claimed"] for book in result["codebooks"] for row in book["codes"]
    )  # three stations are too few
    page = (tmp_path / "page" / "codes.html").read_text()
    assert "http" not in page.replace("http-equiv", "")  # self-contained
    assert page.count("data:image/png;base64,") == 4
    for name in ("use", "raster", "map", "examples"):
        content = (tmp_path / "page" / f"{name}.png").read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">I", content[16:20])[0] > 500


def test_codes_of_windows_by_another_label(run: Path) -> None:
    done = vqtool("codes", run, "--label", "event", "--split", "test")
    assert done.returncode == 0, done.stderr
    assert "codes by event, split test" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--label", "depth"], "no label `depth`"), (["--split", "night"], "no split called `night`"),
     (["--data", "nowhere"], "there is no `metadata.csv`"), (["--out", "no/such/folder"], "there is no folder")],
)  # fmt: skip
def test_codes_reports_mistakes(run: Path, arguments: list[str], message: str) -> None:
    done = vqtool("codes", run, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_day_file_is_tokenised_with_times(run: Path, mseed: Make, tmp_path: Path) -> None:
    path = mseed("day.mseed", dict(zip("ZNE", motion(5, 12000, 5000, 5600), strict=True)))
    done = vqtool("encode", run, path, "--out", tmp_path / "tokens.csv", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == [str(tmp_path / "tokens.csv")]
    with (tmp_path / "tokens.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12000 // 32
    assert rows[-1]["time"] == "2014-04-01T00:01:59.680Z"
    assert vqtool("encode", run, path, "--out", tmp_path / "tokens.npz").returncode == 0
    result = np.load(tmp_path / "tokens.npz")
    assert result["codes"].tolist() == [[int(row["code0"]), int(row["code1"])] for row in rows]
    done = vqtool("decode", run, tmp_path / "tokens.csv", "--out", tmp_path / "x.mseed")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_tokens_in_the_folder_of_the_records_are_not_records(run: Path, mseed: Make, tmp_path: Path) -> None:
    path = mseed("day.mseed", dict(zip("ZNE", motion(5, 4000, 1000, 1600), strict=True)))
    before = path.read_bytes()
    for more in ([], ["--force"]):
        done = vqtool("encode", run, path.parent, "--out", path.parent / "t.csv", *more)
        assert done.returncode == 0, done.stderr
    (path.parent / "u.csv").symlink_to(path)
    for name in ("u.csv", "day.mseed"):
        done = vqtool("encode", run, path.parent, "--out", path.parent / name, "--force")
        assert done.returncode == 2
        assert "is an input as well" in done.stderr
    assert path.read_bytes() == before


def test_a_mapping_from_the_hint_encodes(run: Path, tmp_path: Path) -> None:
    """The command of the hint, word for word, gives the tokens of the same records with SEED codes."""
    from obspy import Stream, Trace

    x = motion(5, 4000, 1000, 1600).astype(np.int32)
    tokens = {}
    for name, channels in (("seed", ("HHZ", "HHN", "HHE")), ("numbers", ("a100", "a101", "a102"))):
        traces = [Trace(row, {"station": "AAA", "channel": channel, "sampling_rate": 100.0})
                  for row, channel in zip(x, channels, strict=True)]  # fmt: skip
        Stream(traces).write(str(tmp_path / f"{name}.slist"), format="SLIST")
        arguments = ["encode", run, tmp_path / f"{name}.slist", "--out", tmp_path / f"{name}.npz"]
        done = vqtool(*arguments)
        if name == "numbers":
            assert done.returncode == 2
            assert "`a100`, `a101`, `a102`" in done.stderr
            setting = re.search(r"hint: (-s '.*?') if ", done.stderr)
            assert setting
            done = vqtool(*arguments, *shlex.split(setting[1]))
        assert done.returncode == 0, done.stderr
        tokens[name] = np.load(tmp_path / f"{name}.npz")["codes"]
    np.testing.assert_array_equal(tokens["numbers"], tokens["seed"])
    done = vqtool("encode", run, tmp_path / "seed.slist", "--out", tmp_path / "x.npz", "-s", "data.window=64")
    assert done.returncode == 2
    assert "only `components` is an option of the files to encode" in done.stderr
    done = vqtool(*arguments[:-1], tmp_path / "y.npz", "-s", 'data.components={a100 = "X"}')
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_encode_reports_mistakes(run: Path, tmp_path: Path, folder: Path) -> None:
    for given, out, message in (
        (tmp_path / "nowhere.mseed", "t.csv", "there is no file or folder"),
        (tmp_path, "t.csv", "there are no seismograms"),
        (folder, "t.tokens", "written to .csv or .npz"),
    ):
        done = vqtool("encode", run, given, "--out", tmp_path / out)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
