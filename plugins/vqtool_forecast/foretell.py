"""The linear forecast that a history foretells by itself: closed form, and the same for a history in any unit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtool.errors import VqtoolError
from vqtool_forecast.instance import TINY, instance
from vqtool_forecast.windows import SeriesRows

PENALTIES = (0.03, 0.3, 3.0)  # of the weights' distance from the seasonal mean's
PROFILE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1e4)  # the last leaves no profile
BLOCKS = 4  # of time, which the training windows are cut into to judge penalties on
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
        return self._like(self.n, self.gram[:features, :features], self.cross[:features], self.power)

    def without(self, other: Moments) -> Moments:
        """These windows but for those of `other`, which are among them."""
        return self._like(self.n - other.n, self.gram - other.gram, self.cross - other.cross, self.power - other.power)

    @classmethod
    def total(cls, parts: Sequence[Moments]) -> Moments:
        """The windows of all parts."""
        columns = zip(*((p.gram, p.cross, p.power) for p in parts), strict=True)
        return cls._like(sum(p.n for p in parts), *(torch.stack(column).sum(0) for column in columns))

    @classmethod
    def _like(cls, n: int, gram: Tensor, cross: Tensor, power: Tensor) -> Moments:
        made = cls(0, 0)
        made.n, made.gram, made.cross, made.power = n, gram, cross, power
        return made

    def solve(self, prior: Tensor, penalty: Tensor) -> Tensor:
        """[F, H]: least squares, drawn to `prior` [F, H] with `penalty` [F]."""
        gram = self.gram / self.n
        return prior + torch.linalg.solve(gram + penalty.diag(), self.cross / self.n - gram @ prior)

    def error(self, weight: Tensor) -> Tensor:
        """[H]: the mean squared error of `weight` [F, H] at every step."""
        total = self.power - 2 * (weight * self.cross).sum(0) + (weight * (self.gram @ weight)).sum(0)
        return total / max(1, self.n)


def fit(rows: SeriesRows, horizons: Sequence[int], season: int, *, profile: bool) -> Linear:
    """Fit on every training window.

    Penalties are chosen by the error on windows that were not fitted on: the validation windows, and each of a few
    blocks of the training windows in turn. No feature is in absolute units and there is no bias, so the forecast of a
    history a x + b, a > 0, is a f + b.

    Raises:
        VqtoolError: there is no training window of the longest horizon.
    """
    series, horizon, lookback = rows.table.series, max(horizons), rows.lookback
    places = series * season if profile and series * season <= MOST_PROFILE else 0
    blocks = moments(rows, "train", horizon, season, places, BLOCKS)
    held_out = moments(rows, "valid", horizon, season, places, 1)
    if not blocks:
        raise VqtoolError(f"there is no training window of {lookback} + {horizon} rows to fit on", where="[data]")
    prior = torch.zeros(lookback + places, horizon, dtype=torch.float64)
    prior[:lookback] = seasonal_mean(lookback, horizon, season)
    plain = [[m.first(lookback) for m in some] for some in (blocks, held_out)]
    weight = _best(blocks, held_out, prior, places, horizons)
    own = weight[lookback:].float() if places else torch.zeros(series * season, horizon)
    return Linear(
        plain=_best(*plain, prior[:lookback], 0, horizons).float() if places else weight.float(),
        weight=weight[:lookback].float(),
        profile=own.view(series, season, horizon),
    )


def _best(
    blocks: Sequence[Moments], held_out: Sequence[Moments], prior: Tensor, places: int, horizons: Sequence[int]
) -> Tensor:
    """The solution of the best penalties, which are chosen anew between one horizon and the next."""
    train = Moments.total(blocks)
    folds = [[(train, one) for one in held_out]]
    if len(blocks) > 1:
        folds.append([(train.without(block), block) for block in blocks])
    tried, scores = [], []
    for penalty, own in itertools.product(PENALTIES, PROFILE_PENALTIES if places else (0.0,)):
        each = torch.full((len(prior),), penalty, dtype=torch.float64)
        each[len(prior) - places :] = own
        tried.append(train.solve(prior, each))
        scores.append(sum((_relative(fold, prior, each, tried[-1], train) for fold in folds if fold), torch.zeros(())))
    borders = [0, *sorted(horizons)]
    parts = []
    for begin, end in itertools.pairwise(borders):
        told = torch.stack([score.expand(len(train.power))[begin:end].sum() for score in scores])
        parts.append(tried[int(told.argmin())][:, begin:end])
    return torch.cat(parts, dim=1)


def _relative(
    fold: Sequence[tuple[Moments, Moments]], prior: Tensor, penalty: Tensor, whole: Tensor, train: Moments
) -> Tensor:
    """[H]: the error of what one part of the windows gives on the other, over that of the seasonal mean."""
    off = [seen.n * seen.error(whole if fit_on is train else fit_on.solve(prior, penalty)) for fit_on, seen in fold]
    plain = [seen.n * seen.error(prior) for _, seen in fold]
    return torch.stack(off).sum(0) / torch.stack(plain).sum(0).clamp_min(TINY)


def moments(rows: SeriesRows, split: str, horizon: int, season: int, places: int, blocks: int) -> list[Moments]:
    """The moments of all windows of a split in which the whole horizon fits, in blocks of time; no empty block."""
    sums = [Moments(rows.lookback + places, horizon) for _ in range(blocks)]
    table = rows.table
    for series in range(table.series):
        at = table.starts(split, series, rows.lookback, horizon)
        for block, cut in zip(sums, at.tensor_split(blocks), strict=True):
            for some in cut.split(CHUNK):
                if len(some):
                    block.add(*_equations(rows, split, series, some, horizon, season, places))
    return [block for block in sums if block.n]


def _equations(
    rows: SeriesRows, split: str, series: int, at: Tensor, horizon: int, season: int, places: int
) -> tuple[Tensor, Tensor]:
    """Features [n, F] and targets [n, H] of windows of one series."""
    one = torch.full_like(at, series)
    end = rows.table.borders[split][1][one]
    x, y = (v.float() for v in (rows.table.history(one, at, rows.lookback), rows.table.future(one, at, horizon, end)))
    last = x[:, -1:]
    features = [x - last]
    if places:
        place = torch.nn.functional.one_hot(series * season + rows.table.phase(one, at), places)
        features.append(instance(x).span.to(x.dtype) * place)
    return torch.cat(features, dim=1), y - last
