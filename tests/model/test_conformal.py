"""Conformal intervals: the share they promise, and what they need."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.run import within
from tests.forecast.tiny import PLUGIN, write_recipe
from vqtool.api import Forecast
from vqtool.model.conformal import moved


@pytest.fixture(autouse=True)
def _away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def of(median: np.ndarray, half: float, actual: np.ndarray | None = None, past: float = -1.0) -> Forecast:
    quantiles = {"0.1": (median - half).tolist(), "0.5": median.tolist(), "0.9": (median + half).tolist()}
    return Forecast("a", "0", ["1"] * len(median), median.tolist(), quantiles, ["0"], [past],
                    None if actual is None else actual.tolist())  # fmt: skip


def test_intervals_that_were_far_too_narrow_hold_their_share() -> None:
    rng = np.random.default_rng(0)
    past = of(np.zeros(2000), 0.1, rng.standard_normal(2000))
    after = moved(of(np.zeros(2000), 0.1), np.sort(past.deviations))
    fresh = rng.standard_normal(2000)
    inside = (np.array(after.quantiles["0.1"]) <= fresh) & (fresh <= np.array(after.quantiles["0.9"]))
    assert 0.77 < inside.mean() < 0.83
    assert np.allclose(after.quantiles["0.5"], np.median(np.array(past.actual)), atol=0.01)


def test_a_missing_truth_has_no_deviation_and_zero_is_a_floor() -> None:
    assert of(np.zeros(3), 1.0, np.array([1.0, np.nan, 2.0])).deviations == pytest.approx([0.5, np.nan, 1], nan_ok=True)
    assert min(moved(of(np.zeros(3), 1.0, past=0.0), np.array([-3.0, 0.0, 3.0])).quantiles["0.1"]) == 0


def test_the_command_calibrates_and_says_on_what(tmp_path: Path) -> None:
    stamps = pd.date_range("2000-01-01", periods=120, freq="MS")
    y = 100 + np.random.default_rng(0).standard_normal(120).cumsum()
    pd.DataFrame({"ds": stamps, "y": y}).to_csv(tmp_path / "a.csv", index=False)
    asked = ("forecast", "--steps", "6", "--data", "a.csv", "--json")
    plain, done = within(*asked), within(*asked, "--conformal")
    assert done.returncode == 0, done.stderr
    assert "calibrated on 48 past values, 8 forecasts of each series" in done.stderr
    (one,), (before,) = (json.loads(each.stdout)["series"] for each in (done, plain))
    assert one["median"] == before["median"]
    assert one["quantiles"]["0.1"] != before["quantiles"]["0.1"]
    assert all(a <= b for a, b in zip(one["quantiles"]["0.1"], one["quantiles"]["0.9"], strict=True))


def test_a_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"ds": range(2000, 2008), "y": range(8)}).to_csv(tmp_path / "a.csv", index=False)
    done = within("forecast", "--steps", "6", "--data", "a.csv", "--freq", "1", "--conformal")
    assert done.returncode == 2
    assert "needs past forecasts of at least 20 values" in done.stderr


def test_one_quantile_cannot_be_set(tmp_path: Path) -> None:
    y = np.arange(60.0) % 7
    pd.DataFrame({"ds": pd.date_range("2000-01-01", periods=60, freq="MS"), "y": y}).to_csv(tmp_path / "a.csv")
    asked = ("forecast", "--steps", "6", "--data", "a.csv", "--conformal")
    for how, count in ((("--quantiles", "0.5"), 1), (("--greedy",), 0)):
        done = within(*asked, *how)
        assert done.returncode == 2
        assert f"these forecasts have {count}" in done.stderr


def test_calibration_on_rows_of_training_is_warned_of(tmp_path: Path) -> None:
    """Past forecasts of rows that the model was trained on are closer than those of new ones."""
    recipe = write_recipe(tmp_path)
    assert within("train", recipe, "--out", tmp_path / "run", "--plugin", PLUGIN).returncode == 0
    asked = ("forecast", tmp_path / "run", "--steps", "6", "--cutoff", "2020-03-10 00:00", "--plugin", PLUGIN)
    done = within(*asked, "--conformal", "--explain")
    assert done.returncode == 0, done.stderr
    assert "calibration: 16 of 16 windows lie in rows that the model was trained on" in done.stderr
    assert "--explain: this model's forecasts are not made of simpler ones" in done.stderr
