"""Forecasts in closed form from a history alone: naive, smoothed, with trends, in logarithms, and autoregressive.

Histories [B, L] end with their last value; of row b only the last `n[b]` are known, whatever stands before them.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = (0.1, 0.3, 0.6)  # shares with which simple exponential smoothing takes each new value
LAGS = 6  # of the autoregression
SHRINK = 0.02  # its penalty, over the mean square of its features
FADE = 0.8  # the weight of a season of the past over that of the season after it
ROOM = 1.0  # how far beyond the range of the history, in ranges, a forecast in logarithms may go

SHAPES = ("ses-0.1", "ses-0.3", "ses-0.6", "last", "theta", "damped", "damped-slow", "seasonal-drift")
NAMES = (*SHAPES, *(f"log-{name}" for name in SHAPES), "naive", "seasonal-naive", "long-seasonal-naive", "mean", "line",
         "autoregression")  # fmt: skip


def closed_forms(y: Tensor, n: Tensor, seasons: tuple[int, int], steps: int, zero: Tensor) -> Tensor:
    """The forecasts [B, len(NAMES), steps] of histories `y` [B, L].

    Args:
        y: histories less their last values, over any scale.
        n: [B] how many values of each are known, at least 3.
        seasons: steps in the season, and in the longer one above it (the same where there is none).
        steps: how far ahead.
        zero: [B] where zero lies in the units of `y`; histories above it have forecasts in logarithms, too.
    """
    ahead = torch.arange(1, steps + 1)
    known = ages(y) < n[:, None]
    plain = _shapes(y, n, known, seasons[0], ahead)
    above = y - zero[:, None]
    positive = (above > 0).logical_or(~known).all(1) & (zero < 0)
    unit = torch.where(positive, -zero, 1.0)[:, None]  # the last value
    logs = torch.where(positive[:, None] & known, (above / unit).clamp_min(1e-300).log(), 0.0)
    grown = _shapes(logs, n, known, seasons[0], ahead)
    low, high = _range(logs, known)
    room = ROOM * (high - low) + 0.1
    grown = grown.maximum((low - room)[:, None, None]).minimum((high + room)[:, None, None])
    grown = torch.where(positive[:, None, None], unit[:, None] * grown.exp() + zero[:, None, None], plain)
    mean = (y * known).sum(1) / n
    slope = _slope(y, known, n)
    middle = (n - 1) / 2
    others = [
        torch.zeros(len(y), steps, dtype=y.dtype),
        _repeated(y, n, seasons[0], ahead),
        _repeated(y, n, seasons[1], ahead) if seasons[1] != seasons[0] else _repeated(y, n, seasons[0], ahead),
        mean[:, None].expand(-1, steps),
        mean[:, None] + slope[:, None] * (middle[:, None] + ahead),
        _autoregression(y, n, known, seasons[0], ahead),
    ]
    return torch.cat([plain, grown, torch.stack(others, 1)], 1)


def ages(y: Tensor) -> Tensor:
    """[L] how many steps before the last value each stands."""
    return torch.arange(y.shape[-1] - 1, -1, -1)


def seasonal_shape(y: Tensor, n: Tensor, known: Tensor, season: int) -> Tensor:
    """[B, season] what each place of the season adds, by age modulo the season; zero where two seasons are not known.

    Classical decomposition: means, over the seasons, of what is left of a centred mean over one; newer seasons count
    for more.
    """
    batch, length = y.shape
    if season == 1 or length < 2 * season:
        return y.new_zeros(batch, season)
    age = ages(y)
    total = torch.cat([y.new_zeros(batch, 1), y.cumsum(1)], 1)
    half, odd = season // 2, season % 2
    centre = torch.arange(half, length - half)
    smooth = (total[:, centre + half + odd] - total[:, centre - half]) / season
    if not odd:
        smooth = (smooth + (total[:, centre + half + 1] - total[:, centre - half + 1]) / season) / 2
    weight = (age[centre] + half < n[:, None]) * FADE ** (age[centre] // season)
    place = age[centre] % season
    left = (y[:, centre] - smooth) * weight
    shape = y.new_zeros(batch, season).index_add(1, place, left)
    shape = shape / y.new_zeros(batch, season).index_add(1, place, weight.to(y)).clamp_min(1e-12)
    shape = shape - shape.mean(1, keepdim=True)
    return torch.where((n >= 2 * season)[:, None], shape, 0.0)


def _shapes(y: Tensor, n: Tensor, known: Tensor, season: int, ahead: Tensor) -> Tensor:
    """The forecasts [B, len(SHAPES), steps] that know additive seasons, levels and trends."""
    shape = seasonal_shape(y, n, known, season)
    adjusted = torch.where(known, y - shape[:, ages(y) % season], 0.0)
    seasonal = shape[:, -ahead % season]
    levels = {share: _smoothed(adjusted, known, share) for share in (*LEVELS, 0.4)}
    change = adjusted.diff(dim=1)
    moves = known[:, :-1]  # both values of a change are known where the earlier one is
    slopes = {share: _smoothed(change, moves, share) for share in (0.1, 0.3)}
    slope = _slope(adjusted, known, n)
    last = adjusted[:, -1]
    drift = (y[:, -1] - y.gather(1, (y.shape[1] - n)[:, None])[:, 0]) / (n - 1).clamp_min(1)
    seasons_on = (ahead - 1) // season + 1

    def damped(level: Tensor, slope: Tensor, share: float) -> Tensor:
        return level[:, None] + slope[:, None] * share * (1 - share**ahead) / (1 - share)

    forms = [
        *(levels[share][:, None] + seasonal for share in LEVELS),
        last[:, None] + seasonal,
        levels[0.4][:, None] + slope[:, None] / 2 * (ahead + 1.5) + seasonal,
        damped(levels[0.6], slopes[0.3], 0.9) + seasonal,
        damped(levels[0.6], slopes[0.1], 0.97) + seasonal,
        _repeated(y, n, season, ahead) + drift[:, None] * torch.where(n >= season, season, 1)[:, None] * seasons_on,
    ]
    return torch.stack(forms, 1)


def _smoothed(y: Tensor, known: Tensor, share: float) -> Tensor:
    """[B] the weighted mean of the known values, `1 - share` less for every step of age."""
    weight = known * (1 - share) ** ages(y).to(y.dtype)
    return (y * weight).sum(1) / weight.sum(1).clamp_min(1e-300)


def _slope(y: Tensor, known: Tensor, n: Tensor) -> Tensor:
    """[B] of the least-squares line through the known values, per step."""
    place = (n[:, None] - 1) / 2 - ages(y)
    place = torch.where(known, place, 0.0)
    return (place * y).sum(1) / place.square().sum(1).clamp_min(1e-12)


def _range(y: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest known value."""
    return y.masked_fill(~known, torch.inf).amin(1), y.masked_fill(~known, -torch.inf).amax(1)


def _repeated(y: Tensor, n: Tensor, season: int, ahead: Tensor) -> Tensor:
    """[B, steps] the last season over and over; the last value where a season is not known."""
    if season > y.shape[1]:
        return y[:, -1:].expand(-1, len(ahead))
    return torch.where((n >= season)[:, None], y[:, -season:][:, (ahead - 1) % season], y[:, -1:])


def _autoregression(y: Tensor, n: Tensor, known: Tensor, season: int, ahead: Tensor) -> Tensor:
    """[B, steps]: each change from the last changes and the distance to the mean, by ridge regression; no season."""
    length = y.shape[1]
    shape = seasonal_shape(y, n, known, season)
    adjusted = y - shape[:, ages(y) % season]
    adjusted = torch.where(known, adjusted, 0.0)
    mean = adjusted.sum(1, keepdim=True) / n[:, None]
    seasonal = shape[:, -ahead % season]
    if length < LAGS + 4:
        return adjusted[:, -1:] + seasonal
    moves = adjusted.diff(dim=1)
    lags = moves.unfold(1, LAGS, 1)[:, :-1]  # [B, T, LAGS], the newest last
    target = moves[:, LAGS:]
    pull = mean - adjusted[:, LAGS:-1]
    features = torch.cat([lags, pull[..., None]], -1)
    enough = (n >= LAGS + 4)[:, None]
    used = (known[:, : -LAGS - 1] & enough).to(y.dtype)  # the earliest value that a row reads is known
    weighted = features * used[..., None]
    gram = weighted.transpose(1, 2) @ features
    size = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-9)
    penalty = (SHRINK + 3.0 / used.sum(1).clamp_min(1)) * size
    eye = torch.eye(LAGS + 1, dtype=y.dtype)
    weight = torch.linalg.solve(gram + penalty[:, None, None] * eye, (weighted * target[..., None]).sum(1))
    weight[:, -1].clamp_(0, 1)  # drawn to the mean, if anywhere
    total = weight[:, :-1].abs().sum(1, keepdim=True)
    weight[:, :-1] /= (total / 0.98).clamp_min(1)  # so that no forecast explodes
    recent, level, found = moves[:, -LAGS:], adjusted[:, -1], []
    recent = torch.where(known[:, -LAGS - 1 : -1], recent, 0.0)
    for _ in range(len(ahead)):
        change = (recent * weight[:, :-1]).sum(1) + weight[:, -1] * (mean[:, 0] - level)
        level = level + change
        recent = torch.cat([recent[:, 1:], change[:, None]], 1)
        found.append(level)
    return torch.stack(found, 1) + seasonal
