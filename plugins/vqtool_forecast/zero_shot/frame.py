"""One frame for histories of any length and frequency: what a forecaster reads of them, as tensors of fixed sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import Batch, Field
from vqtool_forecast.zero_shot.closed_forms import NAMES, ages, closed_forms, seasonal_shape

RECENT = 64  # the last values that are read as they are
SEASONS = 4  # values at the same place of the last seasons
SHORTEST = 4  # values that a history needs
LONGEST = 6048  # values of a history that are ever read: three weeks of five minutes
FARTHEST = 60.0  # forecasts and values are clipped to this, in units of the scale
ORIGINS = 2  # past forecasts of each closed form that are scored
WORST = 1.5  # what the logarithm of an error is where a history is too short for past forecasts
FACTS = ("log-length", "log-season", "seasons", "longer-season", "seasonal", "level", "zeros", "whole", "equal",
         "above", "memory", "memory-2", "size", "spikes", "trend", "best", "short")  # fmt: skip
AHEAD = ("steps", "seasons", "sine", "cosine", "whole-seasons")


def fields(horizon: int) -> dict[str, Field]:
    """What a batch holds; all in units of the history's scale, less its last value."""
    return {
        "x": Field((1, RECENT), "signal"),
        "future": Field((1, horizon)),
        "forms": Field((len(NAMES), horizon)),
        "errors": Field((len(NAMES),)),
        "same": Field((SEASONS, horizon)),
        "ahead": Field((len(AHEAD), horizon)),
        "facts": Field((len(FACTS),)),
        "floor": Field(()),
    }


def longest_history(seasons: tuple[int, int]) -> int:
    """How many of the last values of a history are read."""
    return min(max(512, 4 * seasons[0], 3 * seasons[1]), LONGEST)


def framed(
    histories: Sequence[NDArray[np.float64]], seasons: tuple[int, int], steps: int
) -> tuple[Batch, Tensor, Tensor]:
    """Histories in the frame, to forecast `steps` from.

    Args:
        histories: each of `SHORTEST` values or more; only the last `longest_history` are read.
        seasons: steps in the season, and in the longer one above it (the same where there is none).
        steps: how far ahead.

    Returns:
        The batch (see `fields`; without `future`), and each history's last value and scale, [B] in float64.
    """
    n = torch.tensor([min(len(one), longest_history(seasons)) for one in histories])
    length = int(n.max())
    raw = torch.from_numpy(
        np.stack([np.pad(one[-length:], (max(0, length - len(one)), 0), "edge") for one in histories])
    )
    known = ages(raw) < n[:, None]
    centre, scale = raw[:, -1], _scale(raw, n, known, seasons[0])
    y = ((raw - centre[:, None]) / scale[:, None]).clamp(-1e6, 1e6)
    y = torch.where(known, y, 0.0)
    zero = -centre / scale
    forms = closed_forms(y, n, seasons, steps, zero)
    errors = _past_errors(y, n, seasons, zero)
    ahead = torch.arange(1, steps + 1)
    recent = torch.zeros(len(y), RECENT, dtype=y.dtype)
    some = min(RECENT, length)
    recent[:, RECENT - some :] = y[:, -some:]
    batch = {
        "x": recent.clamp(-FARTHEST, FARTHEST)[:, None],
        "forms": forms.clamp(-FARTHEST, FARTHEST),
        "errors": errors,
        "same": _same_places(y, n, seasons[0], ahead).clamp(-FARTHEST, FARTHEST),
        "ahead": _ahead(seasons[0], ahead).expand(len(y), -1, -1),
        "facts": _facts(raw, y, n, known, seasons, errors, zero),
        "floor": torch.where((raw >= 0).logical_or(~known).all(1), zero, -torch.inf).clamp_min(-1e9),
    }
    return {name: value.float() for name, value in batch.items()}, centre, scale


def _scale(raw: Tensor, n: Tensor, known: Tensor, season: int) -> Tensor:
    """[B] the mean change over a season, or over a step where no season is known; the values' size if none changes."""
    found = torch.zeros(len(raw), dtype=raw.dtype)
    for lag in (season, 1):
        if lag < raw.shape[1]:
            moves, both = (raw[:, lag:] - raw[:, :-lag]).abs(), known[:, :-lag]
            mean = (moves * both).sum(1) / both.sum(1).clamp_min(1)
            found = torch.where(found > 0, found, torch.where(n > lag + 1, mean, 0.0))
    size = (raw.abs() * known).sum(1) / n
    found = found.maximum(1e-9 * size)
    return torch.where(found > 0, found, torch.where(size > 0, size, 1.0))


def _past_errors(y: Tensor, n: Tensor, seasons: tuple[int, int], zero: Tensor) -> Tensor:
    """[B, forms] the logarithm of each closed form's mean error in forecasts from the last few origins."""
    back = min(24, max(4, seasons[0]))
    total, count = y.new_zeros(len(y), len(NAMES)), y.new_zeros(len(y), 1)
    for origin in range(1, ORIGINS + 1):
        cut = origin * back
        if y.shape[1] - cut < 3:
            break
        left = n - cut
        enough = (left >= 3)[:, None]
        then = closed_forms(
            y[:, :-cut] - y[:, -cut - 1 : -cut], left.clamp_min(3), seasons, back, zero - y[:, -cut - 1]
        )
        truth = y[:, -cut : y.shape[1] - cut + back] - y[:, -cut - 1 : -cut]
        error = (then - truth[:, None]).abs().mean(-1)
        total += torch.where(enough, error, 0.0)
        count += enough
    mean = total / count.clamp_min(1)
    return torch.where(count > 0, (mean + 0.01).log(), WORST).clamp(-5, 5)


def _same_places(y: Tensor, n: Tensor, season: int, ahead: Tensor) -> Tensor:
    """[B, SEASONS, steps] the values at the same place of each of the last seasons; the oldest known one beyond."""
    place = (ahead - 1) % season
    found, before = [], y[:, -1:].expand(-1, len(ahead))
    for back in range(1, SEASONS + 1):
        age = back * season - 1 - place  # of the value
        inside = (age < n[:, None]) & (age < y.shape[1])
        before = torch.where(inside, y[:, (y.shape[1] - 1 - age).clamp_min(0)], before)
        found.append(before)
    return torch.stack(found, 1)


def _ahead(season: int, ahead: Tensor) -> Tensor:
    """[len(AHEAD), steps] where in time and season each step lies."""
    turn = 2 * math.pi * ahead / season
    rows = [ahead.log(), (ahead / season).clamp(max=20).log1p(), turn.sin(), turn.cos(), (ahead - 1) // season]
    return torch.stack([row.double().clamp(max=8) for row in rows])


def _facts(
    raw: Tensor, y: Tensor, n: Tensor, known: Tensor, seasons: tuple[int, int], errors: Tensor, zero: Tensor
) -> Tensor:
    """[B, len(FACTS)] what kind of series a history is."""
    season, batch = seasons[0], len(y)
    shape = seasonal_shape(y, n, known, season)[:, ages(y) % season]
    left = torch.where(known, y - shape, 0.0)
    moves, both = left.diff(dim=1), known[:, :-1]
    moves = torch.where(both, moves, 0.0)
    size = moves.abs().sum(1) / (n - 1).clamp_min(1)
    power = moves.square().sum(1).clamp_min(1e-12)
    wave = (shape.square() * known).sum(1) / n
    memory = [(moves[:, lag:] * moves[:, :-lag]).sum(1) / power if moves.shape[1] > lag else y.new_zeros(batch)
              for lag in (1, 2)]  # fmt: skip
    plain = torch.full((batch,), 1.0, dtype=y.dtype)

    def share(which: Tensor) -> Tensor:
        return (which & known).sum(1) / n

    rows = [
        n.double().log(),
        plain * math.log(season),
        (n / season).log1p(),
        plain * math.log(seasons[1] / season),
        wave / (wave + power / n),
        torch.asinh(zero),
        share(raw == 0),
        share(raw == raw.round()),
        (both & (raw.diff(dim=1) == 0)).sum(1) / n,
        (torch.where(known, y, -torch.inf) > 0).sum(1) / n,
        *memory,
        (size + 0.01).log(),
        (moves.abs().amax(1) / size.clamp_min(1e-9)).clamp(max=1e4).log1p(),
        torch.asinh(moves.sum(1) / power.sqrt()),
        errors.amin(1),
        (n < 2 * season).to(y),
    ]
    return torch.stack(rows, 1)
