"""Training windows for forecasts of any series: synthetic ones, real ones and those of one's own file, in one frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import Batch
from vqtool_forecast.zero_shot.frame import FARTHEST, SHORTEST, framed, longest_history
from vqtool_forecast.zero_shot.synthetic import Kind, synthetic

Values = NDArray[np.float64]
Seasons = tuple[int, int]
CHUNK = 256  # windows that are framed at once
HALVES = ("forms", "same", "x", "ahead")  # fields kept as float16
TRIES = 3  # for each window of a real series
CUTS = 3  # windows of each synthetic series
SHARES: dict[Seasons, tuple[float, int, int, int]] = {  # how often, the fewest and most values, the most steps ahead
    (1, 1): (0.20, 8, 120, 16),
    (4, 4): (0.18, 12, 160, 24),
    (12, 12): (0.25, 18, 360, 48),
    (52, 52): (0.04, 60, 420, 48),
    (7, 364): (0.07, 20, 900, 48),
    (5, 260): (0.05, 20, 900, 48),
    (24, 168): (0.14, 40, 900, 48),
    (48, 336): (0.04, 80, 1100, 48),
    (96, 672): (0.015, 150, 1500, 48),
    (288, 2016): (0.015, 400, 2500, 48),
}


@dataclass(frozen=True, slots=True)
class Window:
    """A history and what came after it."""

    past: Values
    future: Values
    seasons: Seasons


def cut(x: Values, seasons: Seasons, farthest: int, rng: Generator) -> Window | None:
    """A window whose history is the whole of what came before, or often a part of it; None where `x` is too short."""
    ahead = min(farthest, max(1, len(x) // 4))
    if len(x) < SHORTEST + ahead:
        return None
    end = int(rng.integers(SHORTEST, len(x) - ahead + 1))
    if rng.random() < 0.5:  # as late as it can be
        end = len(x) - ahead
    most = min(end, longest_history(seasons))
    length = most if rng.random() < 0.6 else int(np.exp(rng.uniform(np.log(SHORTEST), np.log(most + 1))))
    return Window(x[end - max(SHORTEST, length) : end], x[end : end + farthest], seasons)


def synthetic_windows(count: int, rng: Generator) -> list[Window]:
    """`count` windows of new series."""
    kinds, found = list(SHARES), list[Window]()
    chances = np.array([SHARES[kind][0] for kind in kinds])
    while len(found) < count:
        seasons = kinds[int(rng.choice(len(kinds), p=chances / chances.sum()))]
        _, fewest, most, farthest = SHARES[seasons]
        n = int(np.exp(rng.uniform(np.log(fewest), np.log(most)))) + farthest
        x = synthetic(Kind(n, *seasons), rng)
        found += [w for _ in range(CUTS) if (w := cut(x, seasons, farthest, rng)) is not None]
    return found[:count]


def real_windows(series: Sequence[tuple[Values, Seasons]], count: int, rng: Generator) -> list[Window]:
    """`count` windows of real series, as often of each season as of synthetic ones; long series give more of them."""
    by_seasons: dict[Seasons, list[Values]] = defaultdict(list)
    for values, seasons in series:
        if len(values) >= SHORTEST + 4:
            by_seasons[seasons].append(values)
    kinds, found = list(by_seasons), list[Window]()
    chances = np.array([SHARES.get(kind, (0.02,))[0] * min(1.0, len(by_seasons[kind]) / 8) for kind in kinds])
    size = {kind: np.array([len(x) ** 0.5 for x in each]) for kind, each in by_seasons.items()}
    for _ in range(TRIES * count if kinds else 0):  # series that never change give no windows
        if len(found) == count:
            break
        seasons = kinds[int(rng.choice(len(kinds), p=chances / chances.sum()))]
        each, weight = by_seasons[seasons], size[seasons]
        x = each[int(rng.choice(len(each), p=weight / weight.sum()))]
        one = cut(x, seasons, SHARES.get(seasons, (0, 0, 0, 48))[3], rng)
        if one is not None and np.ptp(one.past) > 0:
            found.append(one)
    return found


def batch_of(windows: Sequence[Window], horizon: int) -> Batch:
    """All windows framed, with `future` [N, 1, horizon]: NaN where it is not known; the large tensors as float16."""
    groups: dict[Seasons, list[int]] = defaultdict(list)
    for place, window in enumerate(windows):
        groups[window.seasons].append(place)
    columns: dict[str, Tensor] = {}
    for seasons, places in groups.items():
        places.sort(key=lambda p: len(windows[p].past))
        for begin in range(0, len(places), CHUNK):
            some = places[begin : begin + CHUNK]
            batch, centre, scale = framed([windows[p].past for p in some], seasons, horizon)
            future = torch.full((len(some), horizon), torch.nan, dtype=torch.float64)
            for row, p in enumerate(some):
                values = windows[p].future[:horizon]
                future[row, : len(values)] = torch.from_numpy((values - float(centre[row])) / float(scale[row]))
            batch["future"] = future.clamp(-FARTHEST, FARTHEST)[:, None].float()
            for name, value in batch.items():
                if name not in columns:
                    kept = torch.float16 if name in HALVES else torch.float32
                    columns[name] = torch.empty(len(windows), *value.shape[1:], dtype=kept)
                columns[name][torch.tensor(some)] = value.to(columns[name].dtype)
    return columns


def held_back(names: Iterable[str], share: float) -> list[bool]:
    """Which series are for validation: by their names, so that a series is always on the same side."""
    return [crc32(name.encode()) % 1000 < 1000 * share for name in names]
