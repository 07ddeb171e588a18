"""The shipped voltage recipe as a user runs it, cut short, on real data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.run import document, vqtool

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "voltage.toml"
SHORT = ["stage.tokenizer.steps=40", "stage.regression.steps=250", "stage.prior.steps=60"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voltage") / "run"
    overrides = [part for change in SHORT for part in ("-s", change)]
    done = vqtool("train", RECIPE, "-o", folder, "--json", *overrides)
    assert done.returncode == 0, done.stderr
    (folder / "said.json").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def currents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own file: held-out rows at 200 samples a period."""
    data = np.load(RECIPE.parent / "data" / "magnet_mc1_128.npz")
    rows = np.flatnonzero(data["test_random"])[:12]
    path = tmp_path_factory.mktemp("own") / "currents.npz"
    wave = {k: np.fft.irfft(np.fft.rfft(data[k][rows]), n=200) * 200 / 128 for k in ("v", "i_p")}
    np.savez(path, **wave, **{k: data[k][rows] for k in ("freq_hz", "temp_c", "material")})
    return path


def test_a_short_run_beats_the_plain_baselines(run: Path) -> None:
    result = json.loads((run / "said.json").read_text())
    scores = result["splits"]["test_random"]
    model = scores["model"]
    assert model["reconstruction.error.mean"] < 0.02
    assert model["error.mean"] < min(b["error.mean"] for b in scores["baselines"].values())
    assert model["gain_error.mean"] < 0.05
    assert model["codes.used"] > 0.8
    assert {"error.p95", "snr.db", "correlation.mean", "exposure_gap", "token_accuracy.free", "residual.real"} <= set(
        model
    )
    assert [stage["name"] for stage in result["stages"]] == ["tokenizer", "regression", "prior"]
    names = {path.name for path in run.iterdir()}
    assert {"recipe.toml", "resolved.json", "environment.json", "metrics.jsonl", "summary.json", "prior.safetensors",
            "tokenizer.safetensors", "best.safetensors", "last.safetensors"} <= names  # fmt: skip
    assert (run / "recipe.toml").read_bytes() == RECIPE.read_bytes()


def test_evaluate_gives_what_train_gave(run: Path) -> None:
    done = vqtool("evaluate", run, "--json")
    assert done.returncode == 0, done.stderr
    result, answer = json.loads(done.stdout), json.loads((run / "said.json").read_text())
    assert result["task"] == "predict-codes"
    first, second = (d["splits"]["test_random"]["model"] for d in (result, answer))
    assert first == pytest.approx(second, rel=1e-3, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("how", [(), ("--beam", "4"), ("--temperature", "0.7", "--top-k", "20", "--seed", "3")])
def test_generate_writes_volts_at_the_users_own_rate(run: Path, currents: Path, tmp_path: Path, how: tuple) -> None:
    done = vqtool("generate", run, "--condition", currents, "--out", tmp_path / "v.npz", *how)
    assert done.returncode == 0, done.stderr
    assert "200" in done.stderr  # the resampling is said aloud
    v, true = np.load(tmp_path / "v.npz")["v"], np.load(currents)["v"]
    assert v.shape == true.shape
    error = np.sqrt(((v - true) ** 2).mean(1) / (true**2).mean(1))
    assert error.mean() < 0.3


def test_samples_depend_on_the_seed_and_not_on_the_batch(run: Path, currents: Path, tmp_path: Path) -> None:
    data = np.load(currents)
    np.savez(tmp_path / "one.npz", **{k: data[k][:1] for k in data.files if k != "v"})
    drawn = []
    for name, source, seed in (("a", currents, 1), ("b", tmp_path / "one.npz", 1), ("c", currents, 2)):
        out = tmp_path / f"{name}.npz"
        done = vqtool("generate", run, "--condition", source, "--out", out, "--samples", "3", "--seed", seed)
        assert done.returncode == 0, done.stderr
        drawn.append(np.load(out)["v"])
    assert drawn[0].shape == (12, 3, 200)
    np.testing.assert_allclose(drawn[0][0], drawn[1][0], rtol=1e-3, atol=1e-3 * np.abs(drawn[0][0]).max())
    assert not np.allclose(drawn[0], drawn[2])


def test_encode_and_decode_are_a_codec(run: Path, currents: Path, tmp_path: Path) -> None:
    codes, back = tmp_path / "codes.safetensors", tmp_path / "back.npz"
    assert vqtool("encode", run, currents, "--out", codes).returncode == 0
    assert vqtool("decode", run, codes, "--out", back).returncode == 0
    v, true = np.load(back)["v"], np.load(currents)["v"]
    assert (np.sqrt(((v - true) ** 2).mean(1) / (true**2).mean(1))).mean() < 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"freq_hz": lambda f: f / 1000}, "kHz"),
        ({"i_p": lambda i: i * np.nan}, "NaN"),
        ({"i_p": lambda i: i * 0}, "constant"),
        ({"material": lambda m: np.array(["unobtainium"] * len(m))}, "unobtainium"),
        ({"i_p": lambda i: i[:, :0]}, ""),
    ],
)
def test_bad_conditions_are_one_error(run: Path, currents: Path, tmp_path: Path, change: dict, message: str) -> None:
    data = dict(np.load(currents))
    data |= {name: function(data[name]) for name, function in change.items()}
    np.savez(tmp_path / "bad.npz", **data)
    done = vqtool("generate", run, "--condition", tmp_path / "bad.npz", "--out", tmp_path / "v.npz")
    assert done.returncode == 2
    assert message.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "v.npz").exists()


def test_a_checkpoint_whose_plugin_is_not_installed(run: Path) -> None:
    done = vqtool("evaluate", run, VQTOOL_PLUGINS="")
    assert done.returncode == 1
    assert "voltage" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_tokenizer_is_exported(run: Path, tmp_path: Path) -> None:
    """Its norm computes with complex numbers, which ONNX has not."""
    pytest.importorskip("onnxruntime")
    ways = document("export", run / "tokenizer.safetensors", "--out", tmp_path)["paths"]
    assert ways.keys() == {"encode", "decode"}
    for way in ways.values():
        assert way["difference"] <= 1e-5
        assert Path(way["file"]).is_file()
