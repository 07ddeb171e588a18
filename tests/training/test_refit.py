"""`vqtool backtest --refit`: each window by a model that knows what comes before it, and nothing that comes later."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.cli.run import within
from vqtool.api import ForecastFiles, Forecasts
from vqtool.model.format import read_header
from vqtool.model.load import capable
from vqtool.model.load import load as load_model
from vqtool.model.runs import pretrained
from vqtool.recipe import Recipe, load
from vqtool.training import refit
from vqtool.training.session import Session
from vqtool_forecast.table_files import TableFiles
from vqtool_forecast.user_file import SeriesFiles

RECIPE = """
[data]
kind = "series"
path = "series.csv"
lookback = 24
horizons = [12]
shares = [0.9, 0.05, 0.05]
leave_out = 300

[norm]
kind = "ridge"
profile = false

[encoder]
kind = "patch"
patch = 4

[quantizer]
kind = "ema"
codebook_size = 4

[decoder]
kind = "patch"

[prior]
kind = "gru"
width = 8

[regressor]
kind = "mlp"
zero_init = true

[train]
batch = 16

[[stage]]
name = "tokenizer"
task = "autoencode"
steps = 2
losses = { mse = 1.0, commitment = 1.0 }

[[stage]]
name = "prior"
task = "forecast-codes"
steps = 2
losses = { next-code = 1.0 }

[[stage]]
name = "direct"
task = "forecast-direct"
options = { correction_scale = 0.03 }
steps = 2
losses = { mse = 1.0 }
"""
ROWS, CHANGE, STEP = 600, 300, 24


def frame() -> pd.DataFrame:
    """Hours of two series, whose days look otherwise from row `CHANGE` on."""
    t = np.arange(ROWS)
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, ROWS))
    before, after = np.sin(2 * np.pi * t / 24), -np.sin(2 * np.pi * t / 24) + np.cos(4 * np.pi * t / 24)
    y = np.where(t < CHANGE, before, after)
    stamps = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    return pd.DataFrame({"ds": stamps, "a": 10 + y + noise[0], "b": 5 - 2 * y + noise[1]})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the first half of the file."""
    folder = tmp_path_factory.mktemp("refit")
    frame().to_csv(folder / "series.csv", index=False)
    (folder / "r.toml").write_text(RECIPE)
    done = within("train", folder / "r.toml", "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def backtest(run: object, data: Path, *more: object, windows: int = 3) -> tuple[dict[str, Any], str]:
    """The document of a backtest, and what it said."""
    asked = ["--horizon", 12, "--n-windows", windows, "--step-size", STEP, "--data", data, "--json", *more]
    done = within("backtest", run, *asked)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def forecasts(run: Path, table: pd.DataFrame, folder: Path, *more: object) -> list[pd.DataFrame]:
    """What each window of a backtest with --refit forecasts, baselines included."""
    table.to_csv(folder / "own.csv", index=False)
    out = folder / "out.parquet"
    backtest(run, folder / "own.csv", "--refit", "--out", out, "--force", *more)
    written = pd.read_parquet(out).drop(columns="y")
    return [rows.reset_index(drop=True) for _, rows in written.groupby("cutoff")]


def test_after_a_change_of_regime_it_wins(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = run.parent / "series.csv"
    plain, _ = backtest(run, data)
    again, said = backtest(run, data, "--refit")
    assert (plain["refit"], again["refit"]) == (False, True)
    assert again["overall"]["model"]["mse"] < 0.5 * plain["overall"]["model"]["mse"]
    assert again["cutoffs"] == plain["cutoffs"]
    same = again["overall"]["baselines"]["naive"]
    assert same == pytest.approx(plain["overall"]["baselines"]["naive"])  # the same windows and denominators
    assert again["windows_trained_on"] == 0
    assert "trained on" not in said
    for number in (1, 2, 3):
        assert f"window {number} of 3: training without the last {12 + STEP * (3 - number)} rows" in said
    assert said.count("frequency `h`") == 1
    assert not list(tmp_path.iterdir())


def test_stages_that_change_no_forecast_are_not_trained(run: Path) -> None:
    stages = {name: refit.origin(capable(run / f"{name}.safetensors", Forecasts, "forecast")[0])[0].stages
              for name in ("prior", "direct")}  # fmt: skip
    names = {name: [stage.name for stage in some] for name, some in stages.items()}
    assert names == {"prior": ["tokenizer", "prior"], "direct": ["tokenizer", "direct"]}


def changed(table: pd.DataFrame, row: int) -> pd.DataFrame:
    """Other values from a row on."""
    return table.assign(**{name: table[name].where(table.index < row, 7 - 3 * table[name]) for name in ("a", "b")})


def nothing_later_is_known(run: Path, folder: Path, *more: object) -> None:
    """Other rows at or after the cutoff of the second window change the third window's forecasts alone."""
    cutoff = ROWS - 12 - STEP
    table = frame().drop(index=[cutoff - 2, cutoff - 1, cutoff + 5])  # gaps before and after it
    both = [forecasts(run, one, folder, *more) for one in (table, changed(table, cutoff))]
    for number in (0, 1):
        pd.testing.assert_frame_equal(both[0][number], both[1][number], check_exact=True)
    assert not both[0][2].equals(both[1][2])


@pytest.mark.parametrize("fill", ["ffill", "interp"])
def test_no_row_at_or_after_a_cutoff_changes_its_forecast(run: Path, tmp_path: Path, fill: str) -> None:
    nothing_later_is_known(run, tmp_path, "--fill", fill)


def test_a_row_too_many_would_be_seen(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = refit.trained

    def leaking(recipe: Recipe, *given: Any) -> Any:
        return whole(
            replace(recipe, data=replace(recipe.data, options={**recipe.data.options, "leave_out": 0})), *given
        )

    monkeypatch.setattr(refit, "trained", leaking)
    with pytest.raises(AssertionError):
        nothing_later_is_known(run, tmp_path, "--fill", "ffill")


def test_a_cutoff_hides_later_rows_from_training_too(run: Path, tmp_path: Path) -> None:
    cutoff = ["--cutoff", frame().ds[ROWS - 13]]
    table = frame()
    both = [forecasts(run, one, tmp_path, *cutoff) for one in (table, changed(table, ROWS - 12))]
    for one, other in zip(*both, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_the_model_that_comes_with_vqtool_is_trained_on_for_each_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ["stage.quantiles.steps=2", "stage.paths.steps=2", "data.own=64", "data.valid=8", "train.patience=none",
             "stage.quantiles.lr=1e-2"]  # fmt: skip
    monkeypatch.setattr(refit, "load", lambda path: load(path, short))
    frame().to_csv(tmp_path / "own.csv", index=False)
    plain, _ = backtest("forecaster", tmp_path / "own.csv", windows=2)
    again, _ = backtest("forecaster", tmp_path / "own.csv", "--refit", windows=2)
    assert again["overall"]["baselines"]["theta"] == pytest.approx(plain["overall"]["baselines"]["theta"])
    assert again["overall"]["model"]["mase"] == pytest.approx(plain["overall"]["model"]["mase"], rel=0.5)


def test_what_began_with_other_weights_is_not_trained_again(run: Path, tmp_path: Path) -> None:
    later = ["train", run.parent / "r.toml", "--out", tmp_path / "on", "--from", run / "direct.safetensors"]
    assert within(*later).returncode == 0
    assert read_header(tmp_path / "on" / "direct.safetensors").metadata["started_from"] == "direct.safetensors"
    assert "started_from" not in read_header(run / "direct.safetensors").metadata
    done = within("backtest", tmp_path / "on", "--horizon", 12, "--refit")
    assert done.returncode == 2
    assert "began with the weights of `direct.safetensors`" in done.stderr


def test_a_run_that_began_with_a_model_of_vqtool_s_begins_with_it_again(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "own.csv", index=False)
    short = ["-s", "stage.quantiles.steps=1", "-s", "stage.paths.steps=1", "-s", "data.own=16", "-s", "data.valid=4"]
    path = ["-s", f"data.path={tmp_path / 'own.csv'}", "--out", tmp_path / "on"]
    assert within("train", "--from", "forecaster", *path, *short).returncode == 0
    recipe, start = refit.origin(load_model(tmp_path / "on"))
    assert start in [one.weights for one in pretrained() if one.name == "forecaster"]
    assert [stage.name for stage in recipe.stages] == ["quantiles", "paths"]


def test_what_stops_it_leaves_nothing_behind(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    whole = Session._stage

    def stopped(self: Session, *given: Any) -> int:
        assert list(tmp_path.iterdir())
        os.kill(os.getpid(), signal.SIGINT)
        return whole(self, *given)

    monkeypatch.setattr(Session, "_stage", stopped)
    done = within("backtest", run, "--horizon", 12, "--refit")
    assert done.returncode == 130
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_refitted_is_one_error(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = within("backtest", run, "--horizon", 12, "--n-windows", 45, "--refit", "-s", "data.leave_out=0")
    assert done.returncode == 2
    assert "window 1 of 45: no window of 24 + 12 rows fits into the" in done.stderr
    monkeypatch.delattr(SeriesFiles, "training_options")
    monkeypatch.setattr(TableFiles, "training_options", ForecastFiles.training_options)
    done = within("backtest", run, "--horizon", 12, "--refit")
    assert done.returncode == 2
    assert "--refit needs data that can leave out the last rows of each series, and these cannot" in done.stderr
