"""The linear forecast that a history foretells by itself: closed form, and the same for a history in any unit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtool.errors import VqtoolError
from vqtool_forecast.instance import statistics
from vqtool_forecast.windows import SeriesRows

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)  # of the weights' distance from the seasonal mean's
PROFILE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
MOST_PROFILE = 1024  # more series x places than this are not solved for in one system
CHUNK = 2048


@dataclass(frozen=True)
class Linear:
    """future = last + (history - last) W + range * profile[series, phase]; without a profile, W is `plain`."""

    plain: Tensor  # [L, H]
    weight: Tensor  # [L, H]
    profile: Tensor  # [series, season, H]


def seasonal_mean(lookback: int, horizon: int, season: int) -> Tensor:
    """[L, H], columns summing to 1: the mean over the history's values at the same place in the season."""
    place = torch.arange(-lookback, horizon) % season
    same = (place[:lookback, None] == place[None, lookback:]).double()
    return torch.where(same.sum(0) > 0, same / same.sum(0).clamp_min(1), 1 / lookback)


class Moments:
    """Sums over windows, in float64, of what a penalised least-squares fit and its error step by step need."""

    def __init__(self, features: int, horizon: int) -> None:
        self.n = 0
        self.gram = torch.zeros(features, features, dtype=torch.float64)
        self.cross = torch.zeros(features, horizon, dtype=torch.float64)
        self.power = torch.zeros(horizon, dtype=torch.float64)

    def add(self, features: Tensor, target: Tensor) -> None:
        """Take features [n, F] and targets [n, H]; float32 products are exact enough within a chunk."""
        self.n += len(features)
        self.gram += (features.T @ features).double()
        self.cross += (features.T @ target).double()
        self.power += target.double().square().sum(0)

    def first(self, features: int) -> Moments:
        """The same windows with the first features only."""
        copy = Moments(0, 0)
        copy.n, copy.power = self.n, self.power
        copy.gram, copy.cross = self.gram[:features, :features], self.cross[:features]
        return copy

    def solve(self, prior: Tensor, penalty: Tensor) -> Tensor:
        """[F, H]: least squares, drawn to `prior` [F, H] with `penalty` [F]."""
        gram = self.gram / self.n
        return prior + torch.linalg.solve(gram + penalty.diag(), self.cross / self.n - gram @ prior)

    def error(self, weight: Tensor) -> Tensor:
        """[H]: the mean squared error of `weight` [F, H] at every step."""
        total = self.power - 2 * (weight * self.cross).sum(0) + (weight * (self.gram @ weight)).sum(0)
        return total / max(1, self.n)


def fit(rows: SeriesRows, horizons: Sequence[int], season: int, *, profile: bool) -> Linear:
    """Fit on every training window; penalties by the error on the validation windows, from horizon to horizon.

    No feature is in absolute units and there is no bias: for a history a x + b, a > 0, the forecast is a f + b.
    """
    series, horizon = rows.table.series, max(horizons)
    profile = profile and series * season <= MOST_PROFILE
    places = series * season if profile else 0
    train, valid = (moments(rows, split, horizon, season, places) for split in ("train", "valid"))
    if train.n == 0:
        raise VqtoolError("there is no training window to fit a linear forecast on", where="[data]")
    prior = torch.zeros(rows.lookback + places, horizon, dtype=torch.float64)
    prior[: rows.lookback] = seasonal_mean(rows.lookback, horizon, season)
    plain = _best(train.first(rows.lookback), valid.first(rows.lookback), prior[: rows.lookback], 0, horizons)
    weight = _best(train, valid, prior, places, horizons) if places else plain
    shape = (series, season, horizon)
    both = weight[rows.lookback :].reshape(shape) if places else torch.zeros(shape)
    return Linear(plain.float(), weight[: rows.lookback].float(), both.float())


def _best(train: Moments, valid: Moments, prior: Tensor, places: int, horizons: Sequence[int]) -> Tensor:
    """The solution of the penalties with the least validation error, chosen anew between one horizon and the next."""
    size = len(prior)
    tried = []
    for penalty, own in itertools.product(PENALTIES, PROFILE_PENALTIES if places else (0.0,)):
        each = torch.full((size,), penalty, dtype=torch.float64)
        each[size - places :] = own
        tried.append(train.solve(prior, each))
    judge = valid if valid.n else train
    errors = torch.stack([judge.error(weight) for weight in tried])  # [tried, H]
    borders = [0, *sorted(horizons)]
    parts = [
        tried[int(errors[:, begin:end].sum(1).argmin())][:, begin:end] for begin, end in itertools.pairwise(borders)
    ]
    return torch.cat(parts, dim=1)


def moments(rows: SeriesRows, split: str, horizon: int, season: int, places: int) -> Moments:
    """The moments of all windows of a split in which the whole horizon fits."""
    sums = Moments(rows.lookback + places, horizon)
    for x, y, place in _windows(rows, split, horizon, season):
        last = x[:, -1:]
        features = [x - last]
        if places:
            one = torch.nn.functional.one_hot(place, places)
            features.append(statistics(x)[2].to(x.dtype) * one)
        sums.add(torch.cat(features, dim=1), y - last)
    return sums


def _windows(rows: SeriesRows, split: str, horizon: int, season: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Histories [n, L], futures [n, H] and places [n] = series * season + phase, series after series."""
    table = rows.table
    for s in range(table.series):
        for at in table.starts(split, s, rows.lookback, horizon).split(CHUNK):
            one = torch.full_like(at, s)
            end = table.borders[split][1][one]
            x, y = table.history(one, at, rows.lookback), table.future(one, at, horizon, end)
            yield x.float(), y.float(), s * season + rows.phase(one, at)
