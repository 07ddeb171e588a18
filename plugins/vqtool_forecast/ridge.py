"""The closed-form linear forecast: ridge regression from a history to its future, both against the history's end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtool.errors import VqtoolError
from vqtool_forecast.windows import SeriesRows

PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1)  # added to the mean Gram matrix of train-scaled histories


@dataclass(frozen=True)
class Ridge:
    """`forecast = last + (x - last) W + b`: one W for all series and channels."""

    weight: Tensor  # [L, H] float32
    bias: Tensor  # [H] float32
    penalty: float

    @property
    def horizon(self) -> int:
        """How many steps it forecasts."""
        return self.weight.shape[1]

    def predict(self, x: Tensor) -> Tensor:
        """[..., L] -> [..., H]."""
        last = x[..., -1:]
        return last + (x - last) @ self.weight.to(x) + self.bias.to(x)


class Moments:
    """Sums over windows that a least-squares fit and its error need, in float64; the history has a 1 appended."""

    def __init__(self, lookback: int, horizon: int) -> None:
        self.n = 0
        self.gram = torch.zeros(lookback + 1, lookback + 1, dtype=torch.float64)
        self.cross = torch.zeros(lookback + 1, horizon, dtype=torch.float64)
        self.power = torch.zeros(horizon, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take histories [n, L] and futures [n, H]."""
        last = x[:, -1:].double()
        ones = last.new_ones(len(x), 1)
        x, y = torch.cat([x.double() - last, ones], 1), y.double() - last
        self.n += len(x)
        self.gram += x.T @ x
        self.cross += x.T @ y
        self.power += y.square().sum(0)

    def shorter(self, horizon: int) -> Moments:
        """The same windows, of which only the first `horizon` steps count."""
        copy = Moments(len(self.gram) - 1, horizon)
        copy.n, copy.gram = self.n, self.gram.clone()
        copy.cross, copy.power = self.cross[:, :horizon].clone(), self.power[:horizon].clone()
        return copy

    def solve(self, penalty: float) -> Tensor:
        """[L + 1, H]: the weights, and in the last row the bias, which is not penalised."""
        ridge = torch.full((len(self.gram),), penalty, dtype=torch.float64)
        ridge[-1] = 0
        # the last value minus itself is zero throughout: the penalty alone keeps its row solvable
        return torch.linalg.solve(self.gram / self.n + ridge.diag(), self.cross / self.n)

    def error(self, weight: Tensor) -> float:
        """The mean squared error of `weight` [L + 1, H] over these windows."""
        total = self.power.sum() - 2 * (weight * self.cross).sum() + (weight * (self.gram @ weight)).sum()
        return float(total / (self.n * self.power.numel()))


def fit_ridge(rows: SeriesRows, horizon: int, penalties: Sequence[float] = PENALTIES) -> Ridge:
    """The ridge of one horizon; see `fit_ridges`."""
    return fit_ridges(rows, (horizon,), penalties)[horizon]


def fit_ridges(rows: SeriesRows, horizons: Sequence[int], penalties: Sequence[float] = PENALTIES) -> dict[int, Ridge]:
    """One ridge per horizon, from all training windows of that horizon; the penalty by the validation windows' error.

    Raises VqtoolError where a horizon has no training window, or no validation window to choose the penalty on.
    """
    train, valid = (moments(rows, split, horizons) for split in ("train", "valid"))
    fitted = {}
    for horizon in horizons:
        for split, seen in (("training", train[horizon]), ("validation", valid[horizon])):
            if seen.n == 0:
                raise VqtoolError(
                    f"the {split} part is too short for a single window of {rows.lookback} + {horizon} rows",
                    hint="a shorter `lookback`, shorter `horizons` or other `shares`",
                    where="[data]",
                )
        tried = {penalty: train[horizon].solve(penalty) for penalty in penalties}
        best = min(penalties, key=lambda penalty: valid[horizon].error(tried[penalty]))
        weight = tried[best].float()
        fitted[horizon] = Ridge(weight[:-1], weight[-1], best)
    return fitted


def moments(rows: SeriesRows, split: str, horizons: Sequence[int]) -> dict[int, Moments]:
    """The moments of all windows of each horizon: those of a longer one, and the few that only a shorter one has."""
    found: dict[int, Moments] = {}
    longer = None
    for horizon in sorted(horizons, reverse=True):
        seen = found[longer].shorter(horizon) if longer else Moments(rows.lookback, horizon)
        for x, y in rows.pairs(split, horizon, longer):
            seen.add(x, y)
        found[horizon], longer = seen, horizon
    return found
