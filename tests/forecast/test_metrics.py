"""Errors and intervals against utilsforecast's, whatever the batches; reconstruction and diversity by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from utilsforecast import losses

from vqtool.api import DataSpec, Forecast
from vqtool_forecast.data.series import describe
from vqtool_forecast.metrics.forecast_error import ForecastError
from vqtool_forecast.metrics.intervals import Intervals
from vqtool_forecast.metrics.reconstruction import Reconstruction
from vqtool_forecast.metrics.sequence_diversity import SequenceDiversity
from vqtool_forecast.scores import backtest_scores, in_sample

LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9]
SEASON = 4


def made(seed: int, series: int = 3, windows: int = 5, steps: int = 6) -> tuple[list[Forecast], dict[str, np.ndarray]]:
    """Random forecasts in a backtest, and each series' training part."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(-2, 3, series)
    results = []
    for s in range(series):
        for window in range(windows):
            truth, guess = size[s] * rng.normal(1, 1, (2, steps))
            spread = np.sort(size[s] * rng.normal(1, 1, (len(LEVELS), steps)), 0)
            named = {f"{q:g}": row for q, row in zip(LEVELS, spread, strict=True)}
            ds = [f"{10 * window + k}" for k in range(steps)]
            results.append(
                Forecast(f"s{s}", f"{10 * window - 1}", ds, guess, named, ["0"], [0.0], truth, {"zero": 0 * guess})
            )
    return results, {f"s{s}": size[s] * rng.normal(1, 1, 30) for s in range(series)}


def theirs(forecasts: list[Forecast], before: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """What utilsforecast says of them: metric -> series -> value."""
    table = pd.DataFrame([
        {"unique_id": f.id, "ds": int(d), "y": f.actual[k], "model": f.median[k]}
        | {f"q{q}": v[k] for q, v in f.quantiles.items()}
        | {"model-lo-80": f.quantiles["0.1"][k], "model-hi-80": f.quantiles["0.9"][k]}
        for f in forecasts for k, d in enumerate(f.ds)
    ]).dropna()  # fmt: skip
    train = pd.DataFrame([{"unique_id": i, "ds": k - 100, "y": y} for i, v in before.items() for k, y in enumerate(v)])
    levels = {"models": {"model": [f"q{q:g}" for q in LEVELS]}, "quantiles": np.array(LEVELS)}
    calls = {
        **{name: partial(getattr(losses, name), models=["model"]) for name in ("mse", "mae", "rmse", "smape")},
        **{name: partial(getattr(losses, name), models=["model"], seasonality=SEASON, train_df=train)
           for name in ("mase", "rmsse")},
        "pinball": partial(losses.mqloss, **levels),
        "wql": partial(losses.scaled_crps, **levels),
        "coverage.80": partial(losses.coverage, models=["model"], level=80),
    }  # fmt: skip
    return {name: call(table).set_index("unique_id")["model"].to_dict() for name, call in calls.items()}


@settings(max_examples=5)  # theirs take their time
@given(st.integers(0, 2**32 - 1))
def test_backtest_scores_are_those_of_utilsforecast(seed: int) -> None:
    result, before = made(seed)
    ours = backtest_scores(result, before, SEASON, [])
    for metric, expected in theirs(result, before).items():
        for series, value in expected.items():
            assert ours["series"][series]["model"][metric] == pytest.approx(value, rel=1e-6), metric
        if metric in ("mase", "rmsse", "mse", "mae", "smape"):  # over all: the mean, with as many values in each series
            mean = np.mean(list(expected.values()))
            assert ours["overall"]["model"][metric] == pytest.approx(mean, rel=1e-6), metric
    truth = np.concatenate([f.actual for f in result])
    assert ours["overall"]["baselines"]["zero"]["mae"] == pytest.approx(np.abs(truth).mean())


def test_a_value_that_was_filled_in_is_no_truth() -> None:
    """Scores with some true values unknown are utilsforecast's of the other rows; the denominators know them alone."""
    results, before = made(1)
    results = [
        replace(one, actual=np.where(np.arange(6) == k % 4, np.nan, one.actual)) for k, one in enumerate(results)
    ]
    notes: list[str] = []
    ours = backtest_scores(results, before, SEASON, notes)
    assert notes == ["15 of 90 values to forecast were filled in, not measured, and are not scored"]
    for metric, expected in theirs(results, before).items():
        for series, value in expected.items():
            assert ours["series"][series]["model"][metric] == pytest.approx(value, rel=1e-6), metric
    truth = np.concatenate([f.actual for f in results])
    assert ours["overall"]["baselines"]["zero"]["mae"] == pytest.approx(np.nanmean(np.abs(truth)))
    assert in_sample(torch.tensor([1.0, 2.0, torch.nan, 6.0, 6.0]), 1) == (0.5, 0.5)


def test_held_out_figures_do_not_count_what_was_filled_in() -> None:
    about, figures = spec(2, (4, 6)), []
    measured = torch.ones(34, 1, 6, dtype=torch.bool)
    measured[3, 0, 2] = measured[20, 0, 3] = measured[33] = False
    for filled in (0.0, 1e6):
        error, spread = ForecastError(about), Intervals(about)
        one = next(batches(34, False))
        one["future"] = torch.where(measured | one["future"].isnan(), one["future"], filled)
        quantiles = one.pop("quantiles")
        error.update(**one, measured=measured)
        spread.update(future=one["future"], quantiles=quantiles, series=one["series"], measured=measured)
        figures.append({**error.compute(), **spread.compute()})
    assert figures[0] == figures[1]
    off = (one["forecast"] - one["future"]).masked_fill(~measured, torch.nan)[:, 0, :4]
    assert figures[0]["mse.h4"] == pytest.approx(float(off.square().nanmean()))
    assert (figures[0]["windows.h4"], figures[0]["windows.h6"]) == (17, 10)
    assert (figures[0]["filled.h4"], figures[0]["filled.h6"]) == (6, 2)


def test_a_series_that_never_changed_has_no_mase_and_is_named() -> None:
    result, before = made(0)
    notes: list[str] = []
    before["s1"] = np.full(30, 5.0)
    ours = backtest_scores(result, before, SEASON, notes)
    assert notes == ["no MASE without any seasonal change before the first cutoff: `s1`"]
    assert np.isnan(ours["series"]["s1"]["model"]["mase"])
    others = [ours["series"][name]["model"]["mase"] for name in ("s0", "s2")]
    assert ours["overall"]["model"]["mase"] == pytest.approx(np.mean(others))
    assert in_sample(torch.ones(3), 4) == (None, None)  # shorter than a season


def spec(series: int, horizons: tuple[int, ...], joint: bool = False) -> DataSpec:
    rng = np.random.default_rng(1)
    return describe({
        "ids": [f"s{s}" for s in range(series)], "mean": rng.normal(size=series).tolist(),
        "std": rng.uniform(1, 2, series).tolist(), "mase_scale": [1.0] * series, "rmsse_scale": [1.0] * series,
        "lookback": 8, "horizons": list(horizons), "horizon": max(horizons),
        "channels": "joint" if joint else "independent", "quantiles": LEVELS,
    })  # fmt: skip


def batches(batch: int, joint: bool) -> Iterator[dict[str, torch.Tensor]]:
    """17 windows of 2 series: truth that ends within the longer horizon for some, a forecast and its quantiles."""
    rng = np.random.default_rng(5)
    future, guess = torch.from_numpy(rng.normal(size=(2, 17, 2, 6))).float()
    future[10:, :, 4:] = torch.nan
    spread = torch.from_numpy(np.sort(rng.normal(size=(17, 5, 2, 6)), 1)).float()
    if not joint:
        future, guess = (v.transpose(0, 1).reshape(34, 1, 6) for v in (future, guess))
        spread = spread.permute(2, 0, 1, 3).reshape(34, 5, 1, 6)
    for i in range(0, len(future), batch):
        some = {"future": future[i : i + batch], "forecast": guess[i : i + batch], "quantiles": spread[i : i + batch]}
        yield some if joint else some | {"series": torch.arange(i, min(i + batch, 34)) // 17}


def figures(batch: int, joint: bool) -> dict[str, float]:
    """Both metrics over all the batches."""
    about = spec(2, (4, 6), joint)
    error, spread = ForecastError(about), Intervals(about)
    for one in batches(batch, joint):
        quantiles, series = one.pop("quantiles"), one.get("series")
        error.update(**one)
        spread.update(future=one["future"], quantiles=quantiles, series=series)
    return {**error.compute(), **spread.compute()}


def test_neither_the_batch_size_nor_the_layout_of_channels_changes_a_figure() -> None:
    whole = figures(34, False)
    for batch, joint in ((1, False), (5, False), (33, False), (17, True), (4, True)):
        assert figures(batch, joint) == pytest.approx(whole, rel=1e-6)
    assert (whole["windows.h4"], whole["windows.h6"]) == (17, 10)
    assert "filled.h4" not in whole
    one = next(batches(34, False))
    error = (one["forecast"] - one["future"])[:, 0]
    assert whole["mse.h4"] == pytest.approx(float(error[:, :4].square().mean()))
    assert whole["mae.h6"] == pytest.approx(float(error[~error.isnan().any(1)].abs().mean()))
    assert whole["mase"] == whole["mase.h6"]


def test_forecasts_of_one_horizon_alone_and_under_other_names() -> None:
    about = spec(2, (4, 6))
    metric, plain = ForecastError(about), ForecastError(about)
    for one in batches(8, False):
        one.pop("quantiles")
        zero = torch.zeros_like(one["forecast"])
        metric.update(**one, by_horizon={4: zero[..., :4]}, forecasts={"oracle": one["future"]})
        plain.update(future=one["future"], forecast=zero, series=one["series"])
    found = metric.compute()
    assert found["mse.h4"] == plain.compute()["mse.h4"]
    assert found["mse.h6"] == pytest.approx(figures(34, False)["mse.h6"])
    assert found["oracle.mse.h6"] == 0
    short = ForecastError(about)
    one = next(batches(34, False))
    short.update(future=one["future"], forecast=one["forecast"][..., :5], series=one["series"])
    assert {name for name in short.compute() if ".h" in name} == {"mse.h4", "mae.h4", "mase.h4", "windows.h4"}


def test_paths_speak_through_their_quantiles() -> None:
    about = spec(1, (50,))
    rng = torch.Generator().manual_seed(0)
    truth, paths = torch.randn(200, 1, 50, generator=rng), torch.randn(200, 400, 1, 50, generator=rng)
    metric = Intervals(about)
    metric.update(future=truth, paths=paths, series=torch.zeros(200, dtype=torch.long))
    found = metric.compute()
    assert found["coverage.80"] == pytest.approx(0.8, abs=0.02)  # the paths are honest
    assert found["coverage.50"] == pytest.approx(0.5, abs=0.02)
    assert found["width.80"] == pytest.approx(2 * 1.2816, rel=0.02)
    assert found["coverage.80.lowest"] <= found["coverage.80"] <= found["coverage.80.highest"]
    narrow = Intervals(about)
    narrow.update(future=truth, paths=paths / 2, series=torch.zeros(200, dtype=torch.long))
    assert narrow.compute()["coverage.80"] < 0.6
    silent = Intervals(about)
    for few in (1, 8):  # 8 paths reach from 1/9: no 80 % interval can be read off them
        silent.update(future=truth, paths=paths[:, :few])
    assert silent.compute() == {}


def test_reconstruction_is_measured_in_the_window_s_own_units() -> None:
    x = torch.randn(9, 2, 64, generator=torch.Generator().manual_seed(0))
    x[3, 1] = 5.0
    unlike = x + 0.1 * torch.randn(9, 2, 64, generator=torch.Generator().manual_seed(1)) * x.std(-1, keepdim=True)
    for scale, shift in ((1.0, 0.0), (1e4, -3e4)):
        metric = Reconstruction(spec(2, (4,)))
        for part in range(0, 9, 4):
            metric.update(x=(scale * x + shift)[part : part + 4], x_hat=(scale * unlike + shift)[part : part + 4],
                          future=x)  # fmt: skip
        found = metric.compute()
        assert found["mse"] == pytest.approx(0.01, rel=0.2)
        assert 0 < found["scale_error.mean"] < 0.01
        assert found["constant"] == 1
    metric = Reconstruction(spec(2, (4,)))
    metric.update(x=x, x_hat=x * 1.02 + 0.3, future=x)
    assert metric.compute()["scale_error.range"] == pytest.approx(0.02, rel=1e-3)


def test_diversity_of_sequences() -> None:
    same = torch.tensor([0, 1, 2, 3]).expand(5, 4)[..., None]
    metric = SequenceDiversity(spec(1, (4,)))
    metric.update(codes=same, codebook_sizes=(4,), future=same)
    found = metric.compute()
    assert found == pytest.approx({"codes.distinct_windows": 0, "codes.distinct_pairs": 3 / 15,
                                   "codes.next_entropy_bits": 0}, abs=1e-9)  # fmt: skip
    random = torch.randint(4, (400, 30, 1), generator=torch.Generator().manual_seed(0))
    metric = SequenceDiversity(spec(1, (4,)))
    for part in random.split(90):
        metric.update(codes=part, codebook_sizes=(4,), future=part)
    found = metric.compute()
    assert found["codes.distinct_windows"] == 1
    assert found["codes.distinct_pairs"] == 1
    assert found["codes.next_entropy_bits"] == pytest.approx(2, abs=0.01)
