"""Errors of forecasts, summed and counted series by series; means are taken at the very end, never of batch means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import Forecast


def in_sample(values: Tensor, season: int) -> tuple[float | None, float | None]:
    """Mean absolute and mean squared error of the seasonal naive forecast within training values [n].

    The denominators of MASE (Hyndman and Koehler, 2006) and of RMSSE (squared); None where they would be zero. A NaN is
    a value that was not measured: nothing is counted from or to it.
    """
    step = values[season:] - values[:-season]
    step = step[~step.isnan()]
    absolute, squared = (float(v.mean()) if len(step) else 0.0 for v in (step.abs(), step.square()))
    return absolute or None, squared or None


class PointErrors:
    """Squared, absolute and symmetric percentage errors of point forecasts, by series; a NaN truth is not counted."""

    def __init__(self, series: int) -> None:
        self.squared, self.absolute, self.symmetric, self.n, self.windows = torch.zeros(5, series, dtype=torch.float64)

    def add(self, of: Tensor, truth: Tensor, guess: Tensor, mean: Tensor, std: Tensor) -> None:
        """`of` [N] series, `truth` and `guess` [N, H]; `mean` and `std` [N] bring them to their own units."""
        known = ~truth.isnan()
        error = torch.where(known, guess - truth, 0)
        mean, std = (v.to(truth)[:, None] for v in (mean, std))
        own, own_guess = torch.addcmul(mean, truth, std), torch.addcmul(mean, guess, std)
        symmetric = torch.where(known, (own - own_guess).abs() / (own.abs() + own_guess.abs()), 0)
        symmetric = symmetric.nan_to_num(0.0)  # 0 / 0: both are zero, no error
        sums = (
            (self.squared, error.square()),
            (self.absolute, error.abs()),
            (self.symmetric, symmetric),
            (self.n, known),
        )
        for total, values in sums:
            total.index_add_(0, of, values.sum(1, dtype=torch.float64))
        self.windows.index_add_(0, of, torch.ones(len(of), dtype=torch.float64))

    def figures(self, mase: Tensor, rmsse: Tensor, only: int | None = None) -> dict[str, float]:
        """`mse`, `mae`, `rmse` and `smape` (in [0, 1]) over all values; `mase` and `rmsse` as means over the series.

        `mase` and `rmsse` [S] are the denominators, NaN where a series has none: it is left out of the mean.
        """
        s = slice(None) if only is None else slice(only, only + 1)
        squared, absolute, symmetric, n = (v[s] for v in (self.squared, self.absolute, self.symmetric, self.n))
        total = float(n.sum())
        if total == 0:
            return {}
        mse = float(squared.sum()) / total
        seen = n > 0
        each = {"mase": (absolute / n / mase[s])[seen], "rmsse": (squared / n / rmsse[s]).sqrt()[seen]}
        return {
            "mse": mse,
            "mae": float(absolute.sum()) / total,
            "rmse": math.sqrt(mse),
            "smape": float(symmetric.sum()) / total,
            **{name: float(v.nanmean()) for name, v in each.items()},
        }


class QuantileErrors:
    """Pinball loss, coverage and width of quantile forecasts, by series; a NaN truth is not counted."""

    def __init__(self, series: int, levels: Sequence[float]) -> None:
        self.levels = torch.tensor(list(levels), dtype=torch.float64)
        self.pairs = {
            round(100 * (1 - 2 * low)): (i, j)
            for i, low in enumerate(levels) for j, high in enumerate(levels)
            if low < 0.5 and abs(low + high - 1) < 1e-9
        }  # fmt: skip
        self.pinball = torch.zeros(series, len(levels), dtype=torch.float64)
        self.inside = torch.zeros(series, len(self.pairs), dtype=torch.float64)
        self.width = torch.zeros(series, len(self.pairs), dtype=torch.float64)
        self.size, self.n, self.std = torch.zeros(3, series, dtype=torch.float64)
        self.inside_at: dict[int, Tensor] = {}  # interval -> [H] how often the truth was inside, by step
        self.n_at = torch.zeros(0, dtype=torch.float64)

    def add(self, of: Tensor, truth: Tensor, quantiles: Tensor, mean: Tensor, std: Tensor) -> None:
        """`of` [N], `truth` [N, H], `quantiles` [N, Q, H] of `levels`; `mean`, `std` [N] as for `PointErrors`."""
        truth, quantiles, known = truth.double(), quantiles.double(), ~truth.isnan()
        ahead = torch.where(known[:, None], truth[:, None] - quantiles, 0)  # [N, Q, H]
        level = self.levels[:, None]
        self.pinball.index_add_(0, of, torch.maximum(level * ahead, (level - 1) * ahead).sum(2))
        self.size.index_add_(0, of, torch.where(known, truth * std[:, None] + mean[:, None], 0).abs().sum(1))
        self.n.index_add_(0, of, known.sum(1).double())
        self.std[of] = std
        steps = truth.shape[1]
        if steps > len(self.n_at):
            grow = torch.zeros(steps - len(self.n_at), dtype=torch.float64)
            self.n_at = torch.cat([self.n_at, grow])
            self.inside_at = {p: torch.cat([self.inside_at.get(p, grow[:0]), grow]) for p in self.pairs}
        self.n_at[:steps] += known.sum(0)
        for k, (percent, (i, j)) in enumerate(self.pairs.items()):
            low, high = quantiles[:, i], quantiles[:, j]
            hit = ((low <= truth) & (truth <= high)).double()
            self.inside[:, k].index_add_(0, of, hit.sum(1))
            self.width[:, k].index_add_(0, of, torch.where(known, high - low, 0).sum(1))
            self.inside_at[percent][:steps] += hit.sum(0)

    def figures(self, only: int | None = None) -> dict[str, float]:
        """`pinball` (mean over levels), `wql`, `coverage.80` and so on of each central interval, `width` of the widest.

        `wql` is twice the mean pinball loss over the mean absolute truth, in the series' own units (the scaled CRPS of
        Chronos and GluonTS). Over all series also the widest interval's lowest and highest coverage of any step.
        """
        s = slice(None) if only is None else slice(only, only + 1)
        total = float(self.n[s].sum())
        if total == 0:
            return {}
        own, size = (self.pinball[s] * self.std[s, None]).sum(), float(self.size[s].sum())
        figures = {
            "pinball": float(self.pinball[s].sum()) / total / len(self.levels),
            "wql": 2 * float(own) / len(self.levels) / size if size else math.nan,
        }
        figures |= {f"coverage.{p}": float(self.inside[s, k].sum()) / total for k, p in enumerate(self.pairs)}
        if self.pairs:
            widest = max(self.pairs)
            figures[f"width.{widest}"] = float(self.width[s, list(self.pairs).index(widest)].sum()) / total
            if only is None:
                share = (self.inside_at[widest] / self.n_at)[self.n_at > 0]
                figures |= {
                    f"coverage.{widest}.lowest": float(share.min()),
                    f"coverage.{widest}.highest": float(share.max()),
                }
        return figures


def denominators(about: Mapping[str, Sequence[float | None]], name: str) -> Tensor:
    """[S] in float64, NaN where a series has none."""
    return torch.tensor([math.nan if v is None else v for v in about[name]], dtype=torch.float64)


def whole_windows(
    future: Tensor, guess: Tensor, horizon: int, series: Tensor | None, measured: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The series [N], truth [N, horizon] and forecast [N, ..., horizon] of windows whose truth is that long.

    `future` is [B, C, H] and `guess` [B, C, ..., H']; without `series` [B] channels are the series. A truth that was
    filled in, not `measured` [B, C, H], is NaN.
    """
    batch, channels, _ = future.shape
    of = torch.arange(channels).expand(batch, -1) if series is None else series.cpu()[:, None]
    truth = future[..., :horizon].cpu()
    whole = truth.isfinite().all(-1)
    if measured is not None:
        truth = truth.masked_fill(~measured[..., :horizon].cpu(), torch.nan)
    return of[whole], truth[whole], guess[..., :horizon].cpu()[whole]


def backtest_scores(
    forecasts: Sequence[Forecast], before: Mapping[str, NDArray[np.float64]], season: int, notes: list[str]
) -> dict[str, Any]:
    """`{"overall": ..., "series": {id: ...}}`, each `{"model": metrics, "baselines": {name: metrics}}`.

    In the series' own units, over measured values: filled ones are NaN. `before` holds each series up to the first
    cutoff, for the denominators of MASE and RMSSE.
    """
    place = {name: i for i, name in enumerate(before)}
    scales = [in_sample(torch.from_numpy(np.ascontiguousarray(values)), season) for values in before.values()]
    notes += without_season(before, [mase for mase, _ in scales], "before the first cutoff")
    mase, rmsse = (torch.tensor([math.nan if s[i] is None else s[i] for s in scales]).double() for i in (0, 1))
    of = torch.tensor([place[one.id] for one in forecasts])
    truth = torch.tensor(np.stack([np.asarray(one.actual) for one in forecasts]))
    if filled := int(truth.isnan().sum()):
        notes.append(f"{filled} of {truth.numel()} values to forecast were filled in, not measured, and are not scored")
    own_units = {"mean": torch.zeros(len(of)).double(), "std": torch.ones(len(of)).double()}
    points: dict[str, PointErrors] = {}
    for name in ("", *forecasts[0].baselines):
        guess = np.stack([np.asarray(one.baselines[name] if name else one.median) for one in forecasts])
        points[name] = PointErrors(len(place))
        points[name].add(of, truth, torch.tensor(guess), **own_units)
    levels = list(forecasts[0].quantiles)
    spread = QuantileErrors(len(place), [float(level) for level in levels])
    if levels:
        each = np.stack([[np.asarray(one.quantiles[level]) for level in levels] for one in forecasts])
        spread.add(of, truth, torch.tensor(each), **own_units)

    def figures(only: int | None) -> dict[str, Any]:
        found = {name: errors.figures(mase, rmsse, only) for name, errors in points.items()}
        return {"model": found.pop("") | (spread.figures(only) if levels else {}), "baselines": found}

    return {"overall": figures(None), "series": {name: figures(s) for name, s in place.items()}}


def without_season(ids: Iterable[str], scales: Iterable[float | None], where: str) -> list[str]:
    """A note on the series that never change from season to season, so that errors cannot be measured by that."""
    flat = [f"`{name}`" for name, scale in zip(ids, scales, strict=True) if scale is None]
    return [f"no MASE without any seasonal change {where}: {', '.join(flat[:5])}"] if flat else []
