"""The plain baselines, and the benchmark's figures to four decimals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.forecast.test_series import etth1, opened
from tests.forecast.tiny import frame
from vqtool.api import Baseline
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool_forecast.baselines import plain
from vqtool_forecast.data.series import Series
from vqtool_forecast.metrics.forecast_error import ForecastError
from vqtool_forecast.ridge import Moments, fit_ridges


def fitted(kind: str, data: Series) -> Baseline:
    """A baseline of the data."""
    baseline: Baseline = catalog().make("baseline", kind, {}, data.spec)
    baseline.fit(data.rows("train"))
    return baseline


def scored(kind: str, data: Series, batch: int) -> Mapping[str, Any]:
    """Its held-out figures."""
    baseline, metric, rows = fitted(kind, data), ForecastError(data.spec), data.rows("test")
    for i in range(0, len(rows), batch):
        some = rows.__getitems__(list(range(i, min(i + batch, len(rows)))))
        metric.update(future=some["future"], series=some["series"], **baseline.predict(some))  # type: ignore[arg-type]
    return metric.compute()


HORIZONS = (96, 192, 336, 720)
RIDGE = {96: (0.3831, 0.4339, 0.4754, 0.4697), 336: (0.3694, 0.4028, 0.4262, 0.4326)}


def test_the_seasonal_naive_forecast_of_etth1_to_four_decimals() -> None:
    found = scored("seasonal-naive", etth1(96), 300)
    assert [round(found[f"mse.h{h}"], 4) for h in HORIZONS] == [0.5122, 0.5808, 0.6499, 0.6554]
    assert [round(found[f"mae.h{h}"], 4) for h in HORIZONS] == [0.4333, 0.4692, 0.5008, 0.5141]
    assert [found[f"windows.h{h}"] for h in HORIZONS] == [2785, 2689, 2545, 2161]


@pytest.mark.parametrize("lookback", RIDGE)
def test_the_ridge_of_etth1_to_four_decimals(lookback: int) -> None:
    rows = etth1(lookback).rows("train")
    for horizon, one in fit_ridges(rows, HORIZONS).items():
        squared = [(one.predict(x) - y).square().sum(dtype=torch.float64) for x, y, *_ in rows.windows("test", horizon)]
        windows = sum(len(x) for x, *_ in rows.windows("test", horizon))
        assert round(float(sum(squared)) / windows / horizon, 4) == RIDGE[lookback][HORIZONS.index(horizon)]


def test_a_batch_size_that_does_not_divide_the_windows_changes_nothing(tmp_path: Path) -> None:
    data = opened(tmp_path, frame())
    assert scored("seasonal-naive", data, 7) == pytest.approx(scored("seasonal-naive", data, 1000), rel=1e-6)


def test_what_the_plain_ones_repeat() -> None:
    x = torch.arange(7.0)
    assert plain.naive(x, 3).tolist() == [6, 6, 6]
    assert plain.seasonal_naive(x, 3, 5).tolist() == [4, 5, 6, 4, 5]
    assert plain.seasonal_mean(x, 3, 4).tolist() == [2.5, 3.5, 4.5, 2.5]  # of 1..3 and 4..6


def test_a_season_longer_than_the_history(tmp_path: Path) -> None:
    data = opened(tmp_path, frame(), lookback=8, season=24)
    batch = data.rows("test").__getitems__([0, 3, 150])
    true = torch.cat([data.rows("test").table.history(batch["series"], batch["at"], 24)])
    for kind in ("seasonal-naive", "seasonal-mean"):
        assert torch.equal(fitted(kind, data).predict(batch)["forecast"][:, 0], true[:, :12])
    first = data.rows("train").__getitems__([0])
    with pytest.raises(VqtoolError, match="a season is 24 rows, but a window begins at row 8"):
        fitted("seasonal-mean", data).predict(first)


def test_the_ridge_is_least_squares(tmp_path: Path) -> None:
    data = opened(tmp_path, frame(), lookback=10, horizons=(3, 6))
    rows = data.rows("train")
    x, y = (torch.cat(parts).double() for parts in zip(*(found[:2] for found in rows.windows("train", 3)), strict=True))
    last = x[:, -1:]
    inputs = torch.cat([x - last, torch.ones(len(x), 1)], 1)
    for penalty in (1e-3, 1e-1):
        moments = Moments.empty(11, 3)
        for part in zip(inputs.split(100), (y - last).split(100), strict=True):
            moments.add(*part)
        rest = torch.full((11,), penalty).double()
        rest[-1] = 0
        weight = moments.solve(rest, torch.zeros(11, 3).double())
        padded = torch.cat([inputs, (rest * len(x)).sqrt().diag()])
        expected = torch.linalg.lstsq(padded, torch.cat([y - last, torch.zeros(11, 3)]), driver="gelsd").solution
        torch.testing.assert_close(weight, expected)
        error = float((inputs @ weight + last - y).square().mean())
        assert float(moments.error(weight).mean()) == pytest.approx(error)
    each = fit_ridges(rows, (3, 6))
    alone = fit_ridges(rows, (3,))[3]
    torch.testing.assert_close(each[3].weight, alone.weight)
    shifted = alone.predict(100 + x.float())
    torch.testing.assert_close(shifted, 100 + alone.predict(x.float()), rtol=1e-5, atol=1e-4)


def test_the_ridge_never_sees_a_held_out_row(tmp_path: Path) -> None:
    table = frame()
    one = fitted("ridge-forecast", opened(tmp_path, table))
    table.loc[480:, ["a", "b"]] *= -7
    other = fitted("ridge-forecast", opened(tmp_path, table))
    assert torch.equal(one.fitted[12].weight, other.fitted[12].weight)  # type: ignore[attr-defined]
