"""Columns beside a series: what is known ahead helps, noise does no harm, and what is only observed does not leak."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.cli.run import within
from tests.forecast.laws import backtest, forecast
from tests.training.test_refit import RECIPE
from vqtool.errors import VqtoolError
from vqtool.model.load import load
from vqtool_forecast.columns import ReadOptions
from vqtool_forecast.data.series import Series
from vqtool_forecast.norms.ridge import RidgeNorm
from vqtool_forecast.read_series import read_series

ROWS, AHEAD = 500, 20
KNOWN = {"known": ("promo", "temp"), "observed": ("stock",)}


def long(seed: int = 0, ahead: int = 0, observed: float = 0.0) -> pd.DataFrame:
    """Days of two series that a promotion moves in opposite ways; `ahead` rows more have no value yet."""
    rng, parts = np.random.default_rng(seed), []
    for name, effect in (("a", 3.0), ("b", -20.0)):
        n = ROWS + AHEAD
        promo, temp = (rng.random(n) < 0.2).astype(float), 0.3 * rng.standard_normal(n).cumsum()
        stock = rng.standard_normal(n)
        y = np.sin(2 * np.pi * np.arange(n) / 7) + promo + 0.2 * temp + 0.1 * rng.standard_normal(n)
        y[1:] += observed * stock[:-1]
        stamps = pd.date_range("2022-01-01", periods=n, freq="D")
        part = pd.DataFrame({"unique_id": name, "ds": stamps, "y": 50 + effect * y, "promo": promo, "temp": temp,
                             "stock": stock})[: ROWS + ahead]  # fmt: skip
        part.loc[ROWS:, ["y", "stock"]] = np.nan
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def opened(folder: Path, table: pd.DataFrame, **options: Any) -> Series:
    """The table as data to train on."""
    table.to_csv(folder / "it.csv", index=False)
    return Series(path=folder / "it.csv", layout="long", lookback=28, horizons=(7, 14), **options)


def error(folder: Path, table: pd.DataFrame, **options: Any) -> float:
    """The mean absolute error of the linear forecasts of the held-out windows."""
    data = opened(folder, table, **options)
    norm, rows = RidgeNorm(data.spec), data.rows("test")
    norm.fit(data.rows("train"))
    batch = rows.__getitems__(list(range(len(rows))))
    off = batch["future"] - norm.future_stats(batch, 14)[0]
    return float(off[~off.isnan()].abs().mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_known_ahead_helps_by_far_and_noise_does_no_harm(tmp_path: Path, seed: int) -> None:
    table = long(seed)
    plain = error(tmp_path, table)
    assert error(tmp_path, table, known=("promo", "temp")) < 0.3 * plain
    rng = np.random.default_rng(seed)
    for name in ("promo", "temp"):
        table[name] = rng.permutation(table[name])
    assert error(tmp_path, table, known=("promo", "temp")) < 1.02 * plain
    assert error(tmp_path, table, observed=("promo", "temp")) < 1.02 * plain


def test_what_was_observed_helps_the_steps_after_it(tmp_path: Path) -> None:
    table = long(observed=3.0)
    plain = error(tmp_path, table, shares=(0.7, 0.1, 0.2))
    assert error(tmp_path, table, observed=("stock",)) < 0.99 * plain


def test_no_forecast_reads_what_is_observed_after_it(tmp_path: Path) -> None:
    table, cutoff = long(observed=3.0), ROWS - 40
    data = opened(tmp_path, table, observed=("stock",))
    norm = RidgeNorm(data.spec)
    norm.fit(data.rows("train"))
    assert norm.own_effect[:, 0, 0].abs().min() > 0.1  # the next value depends on the last one observed
    late = table.groupby("unique_id").cumcount() >= cutoff
    other = opened(tmp_path, table.assign(stock=table.stock.mask(late, 9.0)), observed=("stock",))
    rows = [each.rows("test") for each in (data, other)]
    batches = [each.__getitems__(list(range(len(each)))) for each in rows]
    one, again = (norm.future_stats(batch, 14)[0] for batch in batches)
    before = batches[0]["at"] <= cutoff
    assert before.any()
    assert torch.equal(one[before], again[before])
    assert not torch.equal(one[~before], again[~before])


def test_without_columns_the_norm_is_as_it_was(tmp_path: Path) -> None:
    long().to_csv(tmp_path / "it.csv", index=False)
    data = Series(path=tmp_path / "it.csv", layout="long", lookback=28, horizons=(14,))
    assert set(RidgeNorm(data.spec).state_dict()) == {"plain", "weight", "shape", "spread"}
    assert not {"known", "observed"} & {*data.spec.fields, *data.rows("train")[0], *data.spec.metadata}


def test_a_wide_file_shares_its_columns(tmp_path: Path) -> None:
    one = long(ahead=5).query("unique_id == 'a'").drop(columns="unique_id")
    wide = one.rename(columns={"y": "a"}).assign(b=-one.y, promo=one.promo == 1)
    wide.to_csv(tmp_path / "wide.csv", index=False)
    series, _, _ = read_series(tmp_path / "wide.csv", ReadOptions(known=("promo", "temp"), observed=("stock",)))
    assert [one.id for one in series] == ["a", "b"]
    for each in series:
        assert each.covariates is not None
        assert len(each.values) == ROWS
        assert len(each.covariates.stamps) == ROWS + 5
        np.testing.assert_allclose(each.covariates.values[:, 1], wide.temp)
        assert set(each.covariates.values[:, 0]) == {0.0, 1.0}
        assert np.isnan(each.covariates.values[ROWS:, 2]).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with columns of both kinds."""
    folder = tmp_path_factory.mktemp("covariates")
    long().to_csv(folder / "series.csv", index=False)
    recipe = RECIPE.replace("leave_out = 300", 'known = ["promo", "temp"]\nobserved = ["stock"]')
    (folder / "r.toml").write_text(recipe)
    done = within("train", folder / "r.toml", "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.mark.parametrize("stage", ["direct", "prior"])
def test_both_tasks_forecast_what_the_promotion_will_do(run: Path, tmp_path: Path, stage: str) -> None:
    """30 steps are three blocks of 12: what is known moves on with each."""
    table = long(ahead=AHEAD)
    out, files = [], {"off": 0.0, "on": 1.0}
    for name, promo in files.items():
        table.loc[table.y.isna(), "promo"] = promo
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        found = forecast(run / f"{stage}.safetensors", tmp_path / "f.csv", AHEAD, data=tmp_path / f"{name}.csv")
        out.append(found["median"].to_numpy())
    moved = (out[1] - out[0]).reshape(2, AHEAD)
    assert (abs(moved[0] / 3.0 - 1) < 0.5).all()
    assert (abs(moved[1] / -20.0 - 1) < 0.5).all()


def test_python_takes_them_in_the_frame(run: Path) -> None:
    table = long(ahead=6)
    model = load(run)
    found = model.forecast(table, 6)
    table.loc[table.y.isna(), "promo"] = 1 - table.promo
    assert (abs(model.forecast(table, 6)["median"] - found["median"]) > 1).all()
    with pytest.raises(VqtoolError, match="`promo` of series `a` is known for 6 of the 7 steps after 2023-05-15"):
        model.forecast(table, 7)


def test_another_file_may_name_them_otherwise(run: Path, tmp_path: Path) -> None:
    table = long(ahead=6).query("unique_id == 'a'").drop(columns="unique_id")
    table = table.rename(columns={"promo": "sale", "temp": "t2m", "stock": "held"}).sample(frac=1, random_state=0)
    table.to_csv(tmp_path / "own.csv", index=False)
    named = ['data.known=["sale", "t2m"]', 'data.observed=["held"]', "data.sort=true"]
    found = forecast(run, tmp_path / "f.csv", 6, data=tmp_path / "own.csv", overrides=named)
    usual = load(run).forecast(long(ahead=6), 6).query("unique_id == 'a'")
    np.testing.assert_allclose(found["median"], usual["median"], rtol=1e-5)
    with pytest.raises(VqtoolError, match="the model reads 2 columns that are known, `promo`, `temp`, and not 1"):
        forecast(run, tmp_path / "f.csv", 6, data=tmp_path / "own.csv", overrides=['data.known=["sale"]', *named[1:]])


def test_the_future_of_what_is_observed_changes_nothing(run: Path, tmp_path: Path) -> None:
    table = long(ahead=12)
    cutoff = table.ds[ROWS - 30]
    other = table.assign(stock=table.stock.where(table.ds <= cutoff, 9.0))
    both = []
    for name, one in (("one", table), ("other", other)):
        one.to_csv(tmp_path / f"{name}.csv", index=False)
        with_cutoff = forecast(run, tmp_path / "f.csv", 12, data=tmp_path / f"{name}.csv", cutoff=str(cutoff))
        windows = backtest(run, tmp_path / "b.csv", 12, 3, data=tmp_path / f"{name}.csv", step_size=9)
        both.append((with_cutoff, windows[windows.cutoff <= str(cutoff)].reset_index(drop=True)))
    assert len(both[0][1])
    for one, again in zip(*both, strict=True):
        pd.testing.assert_frame_equal(one, again, check_exact=True)
    known = table.assign(promo=table.promo.where(table.ds <= cutoff, 1 - table.promo))
    known.to_csv(tmp_path / "known.csv", index=False)
    found = forecast(run, tmp_path / "f.csv", 12, data=tmp_path / "known.csv", cutoff=str(cutoff))
    assert (abs(found["median"] - both[0][0]["median"]) > 1).all()  # what is known ahead does


def test_a_backtest_reads_the_known_values_of_the_file(run: Path, tmp_path: Path) -> None:
    windows = backtest(run, tmp_path / "b.csv", 12, 3)
    for cutoff, rows in windows.groupby("cutoff"):
        alone = forecast(run, tmp_path / "f.csv", 12, cutoff=cutoff)
        np.testing.assert_allclose(rows["median"], alone["median"], rtol=1e-5)
    model, ridge = (abs(windows[name] - windows.y).mean() for name in ("median", "ridge-forecast"))
    assert model < 0.4 * ridge  # the baseline has no columns


def test_each_window_is_trained_again_with_them(run: Path, tmp_path: Path) -> None:
    table = backtest(run, tmp_path / "b.csv", 12, 1, refit=True)
    assert abs(table["median"] - table.y).mean() < 0.4 * abs(table["ridge-forecast"] - table.y).mean()


def test_joint_channels_have_columns_of_their_own(tmp_path: Path) -> None:
    assert error(tmp_path, long(), channels="joint", known=("promo", "temp")) < 0.3 * error(tmp_path, long())


@pytest.mark.parametrize(("change", "options", "problem"), [
    (lambda t: t.drop(columns="temp"), {}, "there is no column `temp`, which `known` or `observed` names"),
    (lambda t: t, {"observed": ("promo",)}, "`promo` is named twice in `known` and `observed`"),
    (lambda t: t.assign(temp=t.temp.where(t.index != 30)), {}, r"series `a`: row 31 \(2022-01-31 00:00:00\) has no"),
    (lambda t: t.assign(temp=t.temp.where(t.index > 3)), {"fill": "ffill"}, r"series `a`: row 1 \(2022-01-01 00:00:00"),
    (lambda t: t.assign(promo=t.promo.map({0: "no", 1: "yes"})), {}, "`(no|yes)` in row 1 of `promo` is not a number"),
])  # fmt: skip
def test_what_is_refused(tmp_path: Path, change: Any, options: dict[str, Any], problem: str) -> None:
    change(long()).to_csv(tmp_path / "it.csv", index=False)
    with pytest.raises(VqtoolError, match=problem):
        read_series(tmp_path / "it.csv", ReadOptions(**{**KNOWN, "series": ("a",), **options}))


def test_gaps_are_filled_from_both_sides_only_where_the_future_is_known(tmp_path: Path) -> None:
    table = long(ahead=4)
    for name in ("temp", "stock"):
        table.loc[100, name], table.loc[101, name], table.loc[102, name] = 1.0, np.nan, 3.0
    table.to_csv(tmp_path / "it.csv", index=False)
    for fill, known in (("ffill", 1.0), ("interp", 2.0)):
        series, _, _ = read_series(tmp_path / "it.csv", ReadOptions(fill=fill, **KNOWN))
        assert series[0].covariates is not None
        assert list(series[0].covariates.values[101, 1:]) == [known, 1.0]
        assert len(series[0].values) == ROWS  # the rows ahead are no gap


def test_who_does_not_read_them_says_so(tmp_path: Path) -> None:
    table = long(ahead=3)
    table.to_csv(tmp_path / "it.csv", index=False)
    asked = ["forecast", "forecaster", "--steps", 3, "--data", tmp_path / "it.csv", "-s", 'data.known=["promo"]']
    done = within(*asked, "--json")
    assert done.returncode == 0, done.stderr
    assert "this model reads no columns beside a series: `promo` not used" in done.stderr
    assert json.loads(done.stdout)["series"][0]["cutoff"] == "2023-05-15"
    data = Series(path=tmp_path / "it.csv", known=("promo",), observed=("temp",), lookback=28, horizons=(7,))
    from vqtool_forecast.norms.revin import RevIn

    with pytest.raises(VqtoolError, match="the norm `revin` reads no `known` and `observed` columns"):
        RevIn(data.spec)
    norm = RidgeNorm(data.spec)
    with pytest.raises(KeyError, match="known"):
        norm.future_stats({"x": torch.zeros(1, 1, 28)}, 7)
