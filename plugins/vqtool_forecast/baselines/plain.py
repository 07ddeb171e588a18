"""Plain forecasts to compare any model with: from a history alone, or after one closed-form fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vqtool.api import Baseline, Batch, DataSpec, Rows, UnfitError
from vqtool.errors import VqtoolError
from vqtool_forecast.ridge import fit_ridges
from vqtool_forecast.windows import SeriesRows, SeriesTable, require_future

VALID_SHARE = 0.2  # of the rows before the first cutoff, for the choice of the ridge's penalty


class OfFutures(Baseline):
    """A baseline for data with futures."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        require_future(spec, "a forecast from histories")


# kind: naive
class Naive(OfFutures):
    """Repeats the last value of the history."""

    def predict(self, batch: Batch) -> Mapping[str, Tensor]:
        """`forecast` [B, C, H]."""
        return {"forecast": naive(batch["x"], self.spec.metadata["horizon"])}


# kind: seasonal-naive
class SeasonalNaive(OfFutures):
    """Repeats the last season (a day of hours, a year of months); reads beyond the history where that is shorter."""

    def fit(self, rows: Rows) -> None:
        """Keep the rows, for histories of at least a season."""
        self.rows = rows

    def predict(self, batch: Batch) -> Mapping[str, Tensor]:
        """`forecast` [B, C, H]."""
        x, season = self.season_before(batch), self.spec.metadata["season"]
        return {"forecast": seasonal_naive(x, season, self.spec.metadata["horizon"])}

    def season_before(self, batch: Batch) -> Tensor:
        """A batch's histories [B, C, L], or the longer ones of a season where they are shorter than that."""
        x, season = batch["x"], self.spec.metadata["season"]
        if x.shape[-1] >= season:
            return x
        rows = self.rows
        assert isinstance(rows, SeriesRows)
        at = batch["at"][:, None].expand(-1, x.shape[1])
        if int(at.min()) < season:
            raise VqtoolError(
                f"a season is {season} rows, but a window begins at row {int(at.min())}: no seasonal forecast of it",
                hint="`season` or `shares` under [data], or leave the seasonal baselines out of [evaluate]",
            )
        of = torch.arange(rows.table.series).expand(len(at), -1) if rows.joint else batch["series"][:, None]
        return rows.table.history(of, at, season)


# kind: seasonal-mean
class SeasonalMean(SeasonalNaive):
    """Repeats the mean of all whole seasons of the history; of one season where the history is shorter than that."""

    def predict(self, batch: Batch) -> Mapping[str, Tensor]:
        """`forecast` [B, C, H]."""
        x, season = self.season_before(batch), self.spec.metadata["season"]
        return {"forecast": seasonal_mean(x, season, self.spec.metadata["horizon"])}


# kind: ridge-forecast
class RidgeForecast(OfFutures):
    """Ridge regression from the history to the future, both less the history's last value; one matrix for all series.

    Fitted on all training windows of each horizon; the penalty, one of six, is the best on the validation windows. It
    is what NLinear (Zeng et al., AAAI 2023) converges to, and seconds of work.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        if spec.named("mask"):
            raise UnfitError("the baseline `ridge-forecast` reads histories of one length, and these data mask shorter")

    def fit(self, rows: Rows) -> None:
        """Solve for every horizon."""
        assert isinstance(rows, SeriesRows)
        self.fitted = fit_ridges(rows, self.spec.metadata["horizons"])

    def predict(self, batch: Batch) -> Mapping[str, Any]:
        """`forecast` [B, C, H] of the longest horizon, and `by_horizon` those of each horizon's own fit."""
        each = {horizon: one.predict(batch["x"]) for horizon, one in self.fitted.items()}
        return {"forecast": each[self.spec.metadata["horizon"]], "by_horizon": each}


def naive(x: Tensor, steps: int) -> Tensor:
    """The last value [..., L] -> [..., steps]."""
    return x[..., -1:].expand(*x.shape[:-1], steps)


def seasonal_naive(x: Tensor, season: int, steps: int) -> Tensor:
    """The last season, over and over: [..., L] with L >= `season` -> [..., steps]."""
    return x[..., -season:][..., torch.arange(steps) % season]


def seasonal_mean(x: Tensor, season: int, steps: int) -> Tensor:
    """The mean of all whole seasons of the history, over and over."""
    whole = x.shape[-1] // season
    cycle: Tensor = x[..., -whole * season :].unflatten(-1, (whole, season)).mean(-2)
    return cycle[..., torch.arange(steps) % season]


def backtest_forecasts(
    table: SeriesTable, of: Tensor, at: Tensor, steps: int, lookback: int, season: int, notes: list[str]
) -> dict[str, Tensor]:
    """Every baseline's forecasts [B, C, steps] of a backtest, in the units of the table.

    `of` and `at` [B, C] are the series and the rows of the first future values. The ridge is fitted on what precedes
    the first of them in each series; it and the seasonal ones are left out, with a note, where rows are too few.
    """
    x = table.history(of, at, lookback)
    found = {"naive": naive(x, steps)}
    long = x if season <= lookback else table.history(of, at, season) if int(at.min()) >= season else None
    if long is not None:
        found["seasonal-naive"] = seasonal_naive(long, season, steps)
        found["seasonal-mean"] = seasonal_mean(long, season, steps)
    else:
        notes.append(f"no seasonal baselines: a season is {season} rows, the first cutoff comes after {int(at.min())}")
    try:
        found["ridge-forecast"] = _backtest_ridge(table, of, at, x, steps)
    except VqtoolError:
        notes.append(f"no ridge: too few rows before the first cutoff for windows of {lookback} + {steps}")
    return found


def _backtest_ridge(table: SeriesTable, of: Tensor, at: Tensor, x: Tensor, steps: int) -> Tensor:
    """The closed form, fitted on the rows before the first cutoff, each series scaled by those rows."""
    first = [int(at[of == s].min()) for s in range(table.series)]
    table = dataclasses.replace(table, values=table.known_before(torch.tensor(first)))
    train = [int((1 - VALID_SHARE) * n) for n in first]
    parts = [table.values[a : a + n] for a, n in zip(table.offset.tolist(), first, strict=True)]
    mean, std = (torch.stack([getattr(part, name)() for part in parts]) for name in ("mean", "std"))
    std = torch.where(std > 0, std, 1.0)
    each = table.length
    scaled = dataclasses.replace(
        table,
        values=((table.values - mean.repeat_interleave(each)) / std.repeat_interleave(each)).float(),
        borders=torch.tensor([[0] * len(first), train, first, first]),
    )
    fitted = fit_ridges(SeriesRows(scaled, "train", lookback=x.shape[-1], horizons=(steps,)), (steps,))[steps]
    m, s = mean[of][..., None], std[of][..., None]
    return fitted.predict((x - m) / s) * s + m
