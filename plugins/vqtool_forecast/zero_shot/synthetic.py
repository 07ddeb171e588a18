"""Synthetic series: trends, seasons, autoregression, Gaussian processes, steps, spikes, counts, regimes, saturation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kind:
    """What is drawn: a series of `n` values with a season, and a longer one above it (the same: none)."""

    n: int
    season: int
    longer: int


def synthetic(kind: Kind, rng: Generator) -> Values:
    """[n] one series of a generator that is drawn, with what befalls series now and then, of any size and level."""
    names = list(GENERATORS)
    weights = np.array([GENERATORS[name][0] for name in names])
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    return of_generator(name, kind, rng)


def of_generator(name: str, kind: Kind, rng: Generator) -> Values:
    """[n] one series of the generator `name`."""
    _, make, real = GENERATORS[name]
    x = make(kind, rng)
    if real:  # of any sign: steps, spikes and a level of their own
        for event in (_steps, _spikes, _regime):
            if rng.random() < 0.12:
                x = event(x, rng)
        x = _levelled(x, rng)
    return x * float(np.exp(rng.normal(0, 2)))


def _levelled(x: Values, rng: Generator) -> Values:
    """At a level that is some of its deviations off zero, or growing by shares: exp of it."""
    deviation = float(x.std()) or 1.0
    x = (x - x.mean()) / deviation
    how = rng.random()
    if how < 0.35:
        return np.exp(x * float(np.exp(rng.normal(-1.4, 0.7))))
    level = float(np.exp(rng.normal(1.5, 1.2)))
    x = x + level
    if how < 0.85:
        return x if x.min() > 0 else x - min(0.0, float(x.min())) + abs(rng.normal(0, 0.3))
    return x - level * float(rng.random() < 0.7)


def _season(kind: Kind, rng: Generator, season: int) -> Values:
    """[n] a shape that repeats, smooth or rough, which may drift from season to season."""
    m = season
    if m == 1:
        return np.zeros(kind.n)
    t = np.arange(m)
    if rng.random() < 0.4 and m > 2:
        shape = rng.normal(0, 1, m)
        if rng.random() < 0.3:
            shape = np.where(rng.random(m) < 2 / m, 3 * shape, 0.3 * shape)  # a month of gifts, a day of rest
    else:
        waves = int(rng.integers(1, min(6, m // 2) + 1))
        k = np.arange(1, waves + 1)
        size = rng.normal(0, 1, (2, waves)) / k ** rng.uniform(0.3, 1.5)
        turn = 2 * np.pi * np.outer(t, k) / m
        shape = np.cos(turn) @ size[0] + np.sin(turn) @ size[1]
    shape = (shape - shape.mean()) / (shape.std() or 1.0)
    turns = kind.n // m + 1
    change = np.cumsum(rng.normal(0, 1, (turns, m)), 0) * rng.choice([0.0, 0.03, 0.12], p=[0.5, 0.3, 0.2])
    growth = np.exp(np.cumsum(rng.normal(0, 1, turns)) * rng.choice([0.0, 0.05, 0.15], p=[0.6, 0.25, 0.15]))
    begin = int(rng.integers(m))
    x = ((shape + change) * growth[:, None]).ravel()
    return x[begin : begin + kind.n] if begin + kind.n <= len(x) else x[: kind.n]


def _seasons(kind: Kind, rng: Generator) -> Values:
    """[n] the season, or none, and now and then the longer one."""
    x = np.zeros(kind.n)
    if rng.random() < 0.85:
        x = x + _season(kind, rng, kind.season) * float(np.exp(rng.normal(0, 0.6)))
    if kind.longer > kind.season and rng.random() < 0.6:
        if kind.longer % kind.season == 0 and rng.random() < 0.7:  # days that differ: another size, another level
            days = kind.longer // kind.season
            place = np.arange(kind.n) // kind.season % days
            rest = rng.random(days) < 2 / 7
            x = x * np.where(rest, rng.uniform(0.2, 1), 1.0)[place] + np.where(rest, rng.normal(0, 1), 0.0)[place]
        else:
            x = x + _season(kind, rng, kind.longer) * float(np.exp(rng.normal(-0.5, 0.6)))
    return x


def _autoregressive(n: int, rng: Generator) -> Values:
    """[n] noise with memory of one or two steps, of deviation 1; now and then with heavy tails."""
    a, b = float(rng.uniform(-0.3, 0.99)), float(rng.choice([0.0, rng.uniform(-0.5, 0.3)]))
    if abs(b) >= 1 or a + b >= 1 or b - a >= 1:
        b = 0.0
    noise = rng.standard_t(4, n + 50) if rng.random() < 0.25 else rng.normal(0, 1, n + 50)
    x = np.zeros(n + 50)
    for i in range(2, n + 50):
        x[i] = a * x[i - 1] + b * x[i - 2] + noise[i]
    return x[50:] / (x[50:].std() or 1.0)


def _trend(n: int, rng: Generator) -> Values:
    """[n] none, a line, a line that flattens, one that bends now and then, a walk, or a walk of slopes."""
    t, how = np.arange(n) / n, rng.random()
    slope = float(rng.normal(0, 3))
    if how < 0.15:
        return np.zeros(n)
    if how < 0.35:
        return slope * t
    if how < 0.45:
        return slope * (1 - np.exp(-t * rng.uniform(1, 6)))
    if how < 0.65:
        slopes = np.where(rng.random(n) < 4 / n, rng.normal(0, 1, n), 0.0).cumsum() + rng.normal(0, 0.5)
        return 3 * slopes.cumsum() / n * rng.uniform(0.5, 3)
    if how < 0.85:
        return (rng.normal(0, 1, n) + rng.normal(0, 0.2)).cumsum() / np.sqrt(n) * rng.uniform(0.5, 4)
    walk = rng.normal(0, 1, n).cumsum().cumsum()
    return 3 * (walk - walk[0]) / (walk.std() or 1.0)


def components(kind: Kind, rng: Generator) -> Values:
    """Trend, seasons and noise with memory, added up."""
    noise = _autoregressive(kind.n, rng) * float(np.exp(rng.normal(-1.2, 0.8)))
    return _trend(kind.n, rng) + _seasons(kind, rng) * rng.choice([0.3, 1.0, 2.0]) + noise


def smoothing(kind: Kind, rng: Generator) -> Values:
    """What exponential smoothing is right for: level, damped slope and season, each moved by the same errors."""
    n, m = kind.n, kind.season
    alpha, beta = rng.beta(1.2, 2), rng.beta(1, 12) * float(rng.random() < 0.6)
    gamma, damp = rng.beta(1, 8) * float(rng.random() < 0.5), rng.uniform(0.8, 1)
    level, slope = 0.0, float(rng.normal(0, 0.15)) * float(rng.random() < 0.6)
    season = _season(Kind(m, m, m), rng, m) * rng.uniform(0, 4) if m > 1 else np.zeros(1)
    errors, x = rng.normal(0, 1, n), np.zeros(n)
    for i in range(n):
        place = i % len(season)
        x[i] = level + damp * slope + season[place] + errors[i]
        level += damp * slope + alpha * errors[i]
        slope = damp * slope + beta * errors[i]
        season[place] += gamma * errors[i]
    return x


def gaussian_process(kind: Kind, rng: Generator) -> Values:
    """A draw from a Gaussian process whose kernel is a sum or product of smooth, rough, periodic and linear ones."""
    n = min(kind.n, 160)
    t = np.arange(n) / n
    gap = np.abs(t[:, None] - t[None])

    def kernel() -> Values:
        how, length = rng.integers(5), float(np.exp(rng.uniform(np.log(0.02), np.log(1))))
        if how == 0:
            return np.exp(-0.5 * (gap / length) ** 2)
        if how == 1:
            return np.exp(-gap / length)
        if how == 2:
            return np.outer(t - 0.5, t - 0.5) * 8
        if how == 3:
            return (1 + (gap / length) ** 2) ** -rng.uniform(0.3, 2)
        period = kind.season / n if kind.season > 1 and rng.random() < 0.7 else rng.uniform(0.05, 0.6)
        return np.exp(-2 * (np.sin(np.pi * gap / period) / rng.uniform(0.4, 2)) ** 2)

    total = kernel()
    for _ in range(int(rng.integers(0, 4))):
        total = total + rng.uniform(0.2, 2) * kernel() if rng.random() < 0.7 else total * kernel()
    total = total + np.eye(n) * (1e-6 + float(np.exp(rng.normal(-3.5, 1.5))))
    x = np.linalg.cholesky(total + 1e-6 * np.trace(total) / n * np.eye(n)) @ rng.normal(0, 1, n)
    return x if n == kind.n else np.resize(np.concatenate([x, x[::-1]]), kind.n)


def walk(kind: Kind, rng: Generator) -> Values:
    """A random walk whose steps are calm and wild in turn, as of prices and rates."""
    size = np.exp(_autoregressive(kind.n, rng) * rng.uniform(0, 0.6))
    steps = rng.standard_t(5, kind.n) * size + rng.normal(0, 0.05)
    return steps.cumsum() + (_seasons(kind, rng) * 0.5 if rng.random() < 0.15 else 0.0)


def cycles(kind: Kind, rng: Generator) -> Values:
    """Waves whose length and height wander, of a length that is no season."""
    period = float(np.exp(rng.uniform(np.log(5), np.log(max(8.0, kind.n / 2)))))
    turn, keep = 2 * np.pi / period, float(rng.uniform(0.95, 0.999))
    a, b, x = 0.0, 0.0, np.zeros(kind.n + 50)
    noise = rng.normal(0, 1, (2, kind.n + 50))
    for i in range(kind.n + 50):
        a, b = (
            keep * (np.cos(turn) * a - np.sin(turn) * b) + noise[0, i],
            keep * (np.sin(turn) * a + np.cos(turn) * b) + noise[1, i],
        )
        x[i] = a
    x = x[50:] / (x.std() or 1.0)
    x = np.abs(x) if rng.random() < 0.2 else x
    return x + rng.normal(0, 1, kind.n) * rng.uniform(0, 0.3) + _seasons(kind, rng) * rng.choice([0.0, 0.4])


def counts(kind: Kind, rng: Generator) -> Values:
    """Whole numbers around a rate with trend and season; of many rates most are zero."""
    rate = _trend(kind.n, rng) * 0.4 + _seasons(kind, rng) * rng.uniform(0, 0.6) + _autoregressive(kind.n, rng) * 0.2
    rate = np.exp(np.clip(rate - rate.mean(), -4, 4) + rng.normal(1, 1.8))
    spread = rng.gamma(1 / 0.3, 0.3, kind.n) if rng.random() < 0.4 else 1.0
    return rng.poisson(np.clip(rate * spread, 0, 1e6)).astype(float)


def intermittent(kind: Kind, rng: Generator) -> Values:
    """Demand that comes now and then, in amounts of its own; or a rate that is nothing in part of each season."""
    some = rng.random(kind.n) < rng.uniform(0.05, 0.7)
    amounts = np.ceil(np.exp(rng.normal(rng.uniform(0, 3), rng.uniform(0.1, 1), kind.n)))
    if kind.season > 3 and rng.random() < 0.4:  # the sun at night
        shape = np.clip(_season(kind, rng, kind.season), 0, None)
        return np.asarray(shape * np.exp(rng.normal(0, rng.uniform(0.05, 0.5), kind.n)))
    return np.where(some, amounts, 0.0)


def saturating(kind: Kind, rng: Generator) -> Values:
    """Growth towards a limit, or decay from it, with seasons in proportion."""
    t = np.linspace(0, 1, kind.n)
    level = 1 / (1 + np.exp(-(t - rng.uniform(0, 1)) * rng.uniform(3, 15)))
    level = level if rng.random() < 0.7 else 1.02 - level
    noise = np.exp(_autoregressive(kind.n, rng) * rng.uniform(0.01, 0.15) + _seasons(kind, rng) * rng.uniform(0, 0.25))
    return level * noise


def _steps(x: Values, rng: Generator) -> Values:
    """With levels that change for good."""
    at = rng.random(len(x)) < rng.uniform(1, 4) / len(x)
    return x + np.where(at, rng.normal(0, 2, len(x)), 0.0).cumsum() * float(x.std())


def _spikes(x: Values, rng: Generator) -> Values:
    """With values far off."""
    at = rng.random(len(x)) < rng.uniform(0.005, 0.05)
    return x + np.where(at, np.abs(rng.normal(0, 4, len(x))) * rng.choice([-1, 1]), 0.0) * float(x.std())


def _regime(x: Values, rng: Generator) -> Values:
    """With noise that is larger from some time on, or for some time."""
    begin = int(rng.integers(len(x)))
    end = int(rng.integers(begin, len(x) + 1)) if rng.random() < 0.5 else len(x)
    wild = np.zeros(len(x))
    wild[begin:end] = rng.normal(0, rng.uniform(0.3, 1.5), end - begin)
    return x + wild * float(x.std())


GENERATORS: dict[str, tuple[float, Callable[[Kind, Generator], Values], bool]] = {
    "components": (3.0, components, True),
    "smoothing": (2.0, smoothing, True),
    "gaussian-process": (1.5, gaussian_process, True),
    "walk": (0.8, walk, True),
    "cycles": (0.7, cycles, True),
    "counts": (0.8, counts, False),
    "intermittent": (0.4, intermittent, False),
    "saturating": (0.6, saturating, False),
}
