"""Closed-form linear forecasts: ridge regression from a history to its future, over all training windows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtool.errors import VqtoolError
from vqtool_forecast.windows import SeriesRows

PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1)  # of the baseline, added to the mean Gram matrix
PRIOR_PENALTIES = (0.03, 0.3, 3.0)  # of the weights' distance from the seasonal mean's
PROFILE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1e4)  # the last leaves no profile
BLOCKS = 4  # of time, which the training windows are cut into to judge penalties on
MOST_PROFILE = 1024  # more series x places than this are not solved for in one system
TINY = 1e-30
SUMS = ("gram", "cross", "power")


@dataclass
class Moments:
    """Sums over windows, in float64: what a penalised least-squares fit of F features and its error need."""

    gram: Tensor  # [F, F]
    cross: Tensor  # [F, H]
    power: Tensor  # [H]
    n: int = 0

    @classmethod
    def empty(cls, features: int, horizon: int) -> Moments:
        """Of no window."""
        gram, cross = (torch.zeros(features, n, dtype=torch.float64) for n in (features, horizon))
        return cls(gram, cross, torch.zeros(horizon, dtype=torch.float64))

    def add(self, features: Tensor, target: Tensor) -> None:
        """Take features [n, F] and targets [n, H]; float32 products are exact enough within a chunk."""
        self.n += len(features)
        self.gram += (features.T @ features).double()
        self.cross += (features.T @ target).double()
        self.power += target.double().square().sum(0)

    def __sub__(self, other: Moments) -> Moments:
        """These windows without those of `other`, which are among them."""
        n = self.n - other.n
        return Moments(self.gram - other.gram, self.cross - other.cross, self.power - other.power, n)

    @classmethod
    def total(cls, parts: Sequence[Moments]) -> Moments:
        """The windows of all parts."""
        gram, cross, power = (torch.stack([getattr(p, name) for p in parts]).sum(0) for name in SUMS)
        return cls(gram, cross, power, sum(p.n for p in parts))

    def first(self, features: int | None = None, steps: int | None = None) -> Moments:
        """A copy for the same windows with only their first features and steps."""
        gram, cross = self.gram[:features, :features].clone(), self.cross[:features, :steps].clone()
        return Moments(gram, cross, self.power[:steps].clone(), self.n)

    def solve(self, penalty: Tensor, prior: Tensor) -> Tensor:
        """[F, H]: least squares, drawn to `prior` [F, H] with `penalty` [F]."""
        gram = self.gram / self.n
        change: Tensor = torch.linalg.solve(gram + penalty.diag(), self.cross / self.n - gram @ prior)
        return prior + change

    def error(self, weight: Tensor) -> Tensor:
        """[H]: the mean squared error of `weight` [F, H] at every step."""
        total = self.power - 2 * (weight * self.cross).sum(0) + (weight * (self.gram @ weight)).sum(0)
        return total / max(1, self.n)


@dataclass(frozen=True)
class Ridge:
    """The baseline: `forecast = last + (x - last) W + b`, one W for all series and channels."""

    weight: Tensor  # [L, H] float32
    bias: Tensor  # [H] float32

    def predict(self, x: Tensor) -> Tensor:
        """[..., L] -> [..., H]."""
        last = x[..., -1:]
        return last + (x - last) @ self.weight.to(x) + self.bias.to(x)


def fit_ridges(rows: SeriesRows, horizons: Sequence[int], penalties: Sequence[float] = PENALTIES) -> dict[int, Ridge]:
    """One ridge per horizon, from all training windows of that horizon; the penalty by the validation windows' error.

    Raises:
        VqtoolError: a horizon has no training window, or no validation window to choose the penalty on.
    """
    train, valid = (with_bias(rows, split, horizons) for split in ("train", "valid"))
    fitted = {}
    for horizon in horizons:
        for split, seen in (("training", train[horizon]), ("validation", valid[horizon])):
            if seen.n == 0:
                raise VqtoolError(
                    f"the {split} part is too short for a single window of {rows.lookback} + {horizon} rows",
                    hint="a shorter `lookback`, shorter `horizons` or other `shares`",
                    where="[data]",
                )
        penalised = torch.tensor([1.0] * rows.lookback + [0.0], dtype=torch.float64)  # all but the bias
        # the last value minus itself is zero throughout: the penalty alone keeps its row solvable
        prior = torch.zeros_like(train[horizon].cross)
        tried = [train[horizon].solve(penalty * penalised, prior) for penalty in penalties]
        best = min(tried, key=lambda weight: float(valid[horizon].error(weight).mean())).float()
        fitted[horizon] = Ridge(best[:-1], best[-1])
    return fitted


def with_bias(rows: SeriesRows, split: str, horizons: Sequence[int]) -> dict[int, Moments]:
    """The moments of all windows of each horizon: those of a longer one, and the few that only a shorter one has."""
    found: dict[int, Moments] = {}
    longer = None
    for horizon in sorted(horizons, reverse=True):
        seen = found[longer].first(steps=horizon) if longer else Moments.empty(rows.lookback + 1, horizon)
        for x, y, *_ in rows.windows(split, horizon, longer):
            last = x[:, -1:].double()
            seen.add(torch.cat([x.double() - last, last.new_ones(len(x), 1)], dim=1), y.double() - last)
        found[horizon], longer = seen, horizon
    return found


def fit_prior(rows: SeriesRows, horizons: Sequence[int], *, profile: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Fit future = last + (history - last) W + range * profile[series, phase] on every training window.

    Penalties are chosen by the error on windows that were not fitted on: the validation windows, and each of a few
    blocks of the training windows in turn. No feature is in absolute units and there is no bias, so the forecast of a
    history a x + b, a > 0, is a f + b.

    Returns:
        The W [L, H] to use without a profile, the W beside one, and the profile [series, season, H].

    Raises:
        VqtoolError: there is no training window of the longest horizon.
    """
    horizon, lookback, series, season = max(horizons), rows.lookback, rows.table.series, rows.table.season
    places = series * season if profile and series * season <= MOST_PROFILE else 0
    blocks = with_profile(rows, "train", horizon, places, BLOCKS)
    held_out = with_profile(rows, "valid", horizon, places, 1)
    if not blocks:
        raise VqtoolError(f"there is no training window of {lookback} + {horizon} rows to fit on", where="[data]")
    prior = torch.zeros(lookback + places, horizon, dtype=torch.float64)
    prior[:lookback] = seasonal_mean(lookback, horizon, season)
    weight = _best(blocks, held_out, prior, places, horizons).float()
    if not places:
        return weight, weight, torch.zeros(series, season, horizon)
    blocks, held_out = ([one.first(lookback) for one in some] for some in (blocks, held_out))
    plain = _best(blocks, held_out, prior[:lookback], 0, horizons).float()
    return plain, weight[:lookback], weight[lookback:].view(series, season, horizon)


def seasonal_mean(lookback: int, horizon: int, season: int) -> Tensor:
    """[L, H], columns summing to 1: the mean over the history's values at the same place in the season."""
    place = torch.arange(-lookback, horizon) % season
    same = (place[:lookback, None] == place[None, lookback:]).double()
    return torch.where(same.sum(0) > 0, same / same.sum(0).clamp_min(1), 1 / lookback)


def with_profile(rows: SeriesRows, split: str, horizon: int, places: int, blocks: int) -> list[Moments]:
    """The moments of all windows of a split in which the whole horizon fits, in blocks of time; no empty block.

    The features are the history less its last value, and the history's range at its place among `places`.
    """
    sums = [Moments.empty(rows.lookback + places, horizon) for _ in range(blocks)]
    for x, y, place, block in rows.windows(split, horizon, blocks=blocks):
        x, y = x.float(), y.float()
        last = x[:, -1:]
        features = [x - last]
        if places:
            span = x.amax(1, keepdim=True) - x.amin(1, keepdim=True)
            features.append(span * torch.nn.functional.one_hot(place, places))
        sums[block].add(torch.cat(features, dim=1), y - last)
    return [block for block in sums if block.n]


def _best(
    blocks: Sequence[Moments], held_out: Sequence[Moments], prior: Tensor, places: int, horizons: Sequence[int]
) -> Tensor:
    """The solution of the best penalties, which are chosen anew between one horizon and the next."""
    train = Moments.total(blocks)
    folds = [[(train, one) for one in held_out]]
    if len(blocks) > 1:
        folds.append([(train - block, block) for block in blocks])
    tried, scores = [], []
    for penalty, own in itertools.product(PRIOR_PENALTIES, PROFILE_PENALTIES if places else (0.0,)):
        each = torch.full((len(prior),), penalty, dtype=torch.float64)
        each[len(prior) - places :] = own
        tried.append(train.solve(each, prior))
        score = torch.zeros(len(train.power), dtype=torch.float64)
        for fold in filter(None, folds):
            fits = [tried[-1] if fit_on is train else fit_on.solve(each, prior) for fit_on, _ in fold]
            score += _relative_error([judge for _, judge in fold], fits, prior)
        scores.append(score)
    parts = []
    for begin, end in itertools.pairwise([0, *sorted(horizons)]):
        best = int(torch.stack([score[begin:end].sum() for score in scores]).argmin())
        parts.append(tried[best][:, begin:end])
    return torch.cat(parts, dim=1)


def _relative_error(judges: Sequence[Moments], fits: Sequence[Tensor], prior: Tensor) -> Tensor:
    """[H]: the error of each fit on windows it has not seen, over that of the seasonal mean there."""
    error = torch.stack([judge.n * judge.error(fit) for judge, fit in zip(judges, fits, strict=True)]).sum(0)
    plain = torch.stack([judge.n * judge.error(prior) for judge in judges]).sum(0)
    return error / plain.clamp_min(TINY)
