"""`vqtool forecast --method`: the forecast of a method that the shipped forecaster compares itself with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.run import within
from tests.forecast.test_any_series import file_of


@pytest.fixture(autouse=True)
def _away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no runs."""
    monkeypatch.chdir(tmp_path)


def test_the_forecast_of_a_method_that_is_ahead_can_be_had(tmp_path: Path) -> None:
    """As a file and in the document; without quantiles, or with those that its own past errors give."""
    data = file_of(tmp_path / "mine.csv", "MS", 60)
    asked = ["forecast", "--steps", "6", "--data", str(data), "--method", "seasonal-naive"]
    done = within(*asked, "--json", "--out", str(tmp_path / "next.csv"))
    assert done.returncode == 0, done.stderr
    document, table, past = json.loads(done.stdout), pd.read_csv(tmp_path / "next.csv"), pd.read_csv(data)
    assert list(table) == ["unique_id", "ds", "median"]
    for name, one in zip("ab", document["series"], strict=True):
        assert one["median"] == pytest.approx(past[name].to_numpy()[-12:-6].tolist(), rel=1e-4)
        assert one["quantiles"] == {}
    assert table["median"].tolist() == pytest.approx([v for one in document["series"] for v in one["median"]])
    assert (document["method"], set(document["last_window"]["errors"]) >= {"model", "theta"}) == (
        "seasonal-naive",
        True,
    )
    assert "`seasonal-naive` has no quantiles of its own: --conformal" in done.stderr
    wide = json.loads(within(*asked, "--conformal", "--json").stdout)["series"]
    own = json.loads(within(*asked[:-2], "--conformal", "--json").stdout)["series"]
    for one, bare, ours in zip(wide, document["series"], own, strict=True):
        assert one["median"] == bare["median"]
        assert all(low <= high for low, high in zip(one["quantiles"]["0.1"], one["quantiles"]["0.9"], strict=True))
        assert one["quantiles"]["0.1"] != ours["quantiles"]["0.1"]


def test_quantiles_of_a_method_hold_their_share_of_its_past_errors(tmp_path: Path) -> None:
    """Naive forecasts of a walk that climbs lie below the truth: the calibrated fan lies above its medians."""
    steps = np.random.default_rng(0).uniform(0.5, 1.5, 120)
    climbing = pd.DataFrame({"ds": pd.date_range("2020-01-01", periods=120, freq="MS"), "a": 100 + steps.cumsum()})
    climbing.to_csv(tmp_path / "up.csv", index=False)
    done = within("forecast", "--steps", "6", "--data", str(tmp_path / "up.csv"), "--method", "naive", "--conformal",
                  "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["series"]
    assert one["median"] == pytest.approx([climbing["a"].iloc[-1]] * 6, rel=1e-4)
    assert all(low > middle for low, middle in zip(one["quantiles"]["0.1"][1:], one["median"][1:], strict=True))


@pytest.mark.parametrize(("more", "problem", "hint"), [
    (["--method", "tehta"], "no method `tehta`", "did you mean `theta`?"),
    (["--method", "prophet"], "no method `prophet`", "it knows `naive`"),
    (["--method", "theta", "--explain"], "--explain is of the model's forecasts", "leave one"),
])  # fmt: skip
def test_a_method_that_is_not_there(more: list[str], problem: str, hint: str, tmp_path: Path) -> None:
    done = within("forecast", "--steps", "3", "--data", str(file_of(tmp_path / "mine.csv", "MS", 40)), *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert hint in done.stderr


def test_the_method_that_is_ahead_is_named(tmp_path: Path) -> None:
    """Where every value is the one a season before, seasonal naive forecasts are right and the model nearly so."""
    table = pd.DataFrame({"ds": pd.date_range("2020-01-01", periods=96, freq="MS"),
                          "a": np.tile(np.random.default_rng(1).normal(50, 9, 12), 8)})  # fmt: skip
    table.to_csv(tmp_path / "mine.csv", index=False)
    done = within("backtest", "--horizon", "6", "--n-windows", "3", "--data", str(tmp_path / "mine.csv"))
    assert "is ahead of the model on this file: `vqtool forecast --method seasonal-naive`" in done.stderr, done.stderr
    done = within("forecast", "--steps", "6", "--data", str(tmp_path / "mine.csv"), "--method", "naive")
    assert "best on this file: seasonal-naive; naive is not (--method seasonal-naive gives its forecast)" in done.stderr
