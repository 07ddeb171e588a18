"""The shipped recipe on a file of one's own, and its norm, loss and baselines on `kind = "arrays"`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.run import within

from .conftest import winding

RECIPE = Path(__file__).parents[2] / "recipes" / "voltage.toml"
SHORT = [f"stage.{name}.steps=2" for name in ("tokenizer", "regression", "prior")]
ARRAYS = """
[data]
kind = "arrays"
path = "mine.npz"
periodic = true
[norm]
kind = "impedance"
[encoder]
kind = "patch"
patch = 32
[quantizer]
kind = "residual-ema"
levels = 2
codebook_size = 4
[decoder]
kind = "patch"
[[stage]]
name = "tokenizer"
task = "autoencode"
steps = 2
losses = { mse = 1.0, commitment = 0.25, faraday = 0.1 }
[evaluate]
metrics = ["relative-error", "faraday-residual", "energy"]
baselines = ["faraday-law", "impedance", "ridge"]
"""


def settings(*texts: str) -> list[str]:
    return [word for text in texts for word in ("-s", text)]


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    (folder / "arrays.toml").write_text(ARRAYS)
    np.savez(folder / "mine.npz", **arrays)
    return folder / "arrays.toml"


def test_the_shipped_recipe_trains_on_a_file_of_24_samples_without_masks(tmp_path: Path) -> None:
    made = winding(80, length=24)
    np.savez(tmp_path / "mine.npz", **{key: made[key] for key in ("v", "i_p", "freq_hz", "temp_c", "material")})
    done = within(
        "train", RECIPE, *settings(f"data.path={tmp_path / 'mine.npz'}", *SHORT), "-o", tmp_path / "run", "--json"
    )
    assert done.returncode == 0, done.stderr
    split = json.loads(done.stdout)["splits"]["test_random"]
    assert set(split["baselines"]) == {"faraday-law", "impedance", "ridge"}
    assert split["baselines"]["impedance"]["error.mean"] < 0.01
    assert "24 samples a period were resampled to 128" in done.stderr
    assert "16 of 80 waveforms at random are held out" in done.stderr
    currents = {
        "i_p": made["i_p"] * 1e3,
        "freq_hz": made["freq_hz"],
        "temp_c": made["temp_c"],
        "material": made["material"],
    }
    np.savez(tmp_path / "mA.npz", **currents)
    generate = ("generate", tmp_path / "run", "--condition", tmp_path / "mA.npz", "--out", tmp_path / "v.npz")
    asked = within(*generate)
    assert asked.returncode == 2
    assert "is it in mA?" in asked.stderr
    assert "-s data.current_unit=mA" in asked.stderr
    assert within(*generate, "-s", "data.current_unit=mA").returncode == 0
    with np.load(tmp_path / "v.npz") as written:
        np.testing.assert_allclose(written["i_p"], made["i_p"], atol=1e-3)
        assert written["v"].shape == (80, 24)


@pytest.mark.parametrize("time", ["scalar_frequency", "extra_frequency", "extra_dt", "scalar_dt"])
@pytest.mark.parametrize("several", [False, True])
def test_norm_loss_and_baselines_serve_on_arrays(tmp_path: Path, time: str, several: bool) -> None:
    made = winding(60)
    one = made["freq_hz"] if time.endswith("frequency") else 1 / (32 * made["freq_hz"])
    given = {"x": made["v"], "wave_current": made["i_p"], time: one}
    rows = slice(None) if several else made["material"] == "soft"
    if several:
        given["category_material"] = made["material"]
    recipe = saved(tmp_path, **{key: value[rows] for key, value in given.items()})
    assert within("check", recipe).returncode == 0
    done = within("train", recipe, "-o", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    split = json.loads(done.stdout)["splits"]["test"]
    for name in ("faraday-law", "impedance"):
        assert split["baselines"][name]["error.mean"] < 0.01, name
    assert split["model"]["reconstruction.residual.real"] < 0.01


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("x",), "the norm `impedance` needs `current` and `frequency`"),
        (("x", "wave_current"), "the norm `impedance` needs `frequency`"),
        (("x", "extra_frequency"), "the norm `impedance` needs `current`"),
    ],
)
def test_check_finds_what_training_refuses_and_its_hint_names_the_arrays(tmp_path, given, message) -> None:
    made = winding(60)
    whole = {"x": made["v"], "wave_current": made["i_p"], "extra_frequency": made["freq_hz"]}
    recipe = saved(tmp_path, **{name: whole[name] for name in given})
    for command in (("check",), ("train", "-o", tmp_path / "run")):
        done = within(command[0], recipe, *command[1:])
        assert done.returncode == 2
        assert message in done.stderr
        assert "`wave_current`" in done.stderr
        assert "`extra_frequency`" in done.stderr


@pytest.mark.parametrize("without", ["norm", "loss"])
def test_check_finds_it_of_losses_and_baselines_too(tmp_path: Path, without: str) -> None:
    recipe = saved(tmp_path, x=winding(60)["v"])
    text = ARRAYS.replace('[norm]\nkind = "impedance"\n', "")
    other = 'baselines = ["faraday-law", "impedance", "ridge"]\n' if without == "norm" else ", faraday = 0.1"
    recipe.write_text(text.replace(other, ""))
    done = within("check", recipe)
    assert done.returncode == 2
    assert ("the loss `faraday`" if without == "norm" else "the baseline `faraday-law`") in done.stderr


def test_check_without_the_data_checks_the_rest(tmp_path: Path) -> None:
    (tmp_path / "arrays.toml").write_text(ARRAYS)
    done = within("check", tmp_path / "arrays.toml")
    assert done.returncode == 0
    assert "the data were not checked: there is no" in done.stderr
