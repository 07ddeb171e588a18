"""Folding and resampling of periodic records."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtool_voltage import periods


def periodic(harmonics: int, samples: int, count: int = 1, seed: int = 0) -> np.ndarray:
    """One row of `count` periods in `samples` samples, with the mean and the harmonics 1 to `harmonics`."""
    rng = np.random.default_rng(seed)
    t = 2 * np.pi * count * np.arange(samples) / samples
    waves = [rng.normal() * np.cos(h * t) + rng.normal() * np.sin(h * t) for h in range(1, harmonics + 1)]
    return (0.3 + np.sum(waves, 0))[None]


@given(st.integers(24, 1000), st.sampled_from([64, 100, 128, 129]), st.integers(0, 99))
def test_resampling_a_band_limited_period_is_exact(samples, length, seed):
    got = periods.fold(periodic(10, samples, seed=seed), 1, length)
    np.testing.assert_allclose(got, periodic(10, length, seed=seed), atol=1e-9)


@given(st.integers(1, 9), st.integers(24, 60), st.integers(0, 20), st.integers(0, 99))
def test_folding_whole_periods_gives_one_and_unfolding_gives_the_record_back(count, each, more, seed):
    samples = count * each + min(more, count - 1)  # samples need not be a multiple of the periods
    record = periodic(10, samples, count, seed)
    one = periods.fold(record, count, 128)
    np.testing.assert_allclose(one, periodic(10, 128, seed=seed), atol=1e-9)
    np.testing.assert_allclose(periods.unfold(one, count, samples), record, atol=1e-9)


@given(st.sampled_from([16, 32, 48]), st.sampled_from([64, 96, 128]), st.integers(0, 99))
def test_up_and_down_again_keeps_even_the_nyquist_bin(low, high, seed):
    x = np.random.default_rng(seed).normal(size=(2, low))
    np.testing.assert_allclose(periods.fold(periods.fold(x, 1, high), 1, low), x, atol=1e-9)


def test_folding_is_the_mean_over_the_periods():
    x = np.random.default_rng(0).normal(size=(2, 5, 64))
    np.testing.assert_allclose(periods.fold(x.reshape(2, -1), 5, 64), x.mean(1), atol=1e-9)


def test_unlike_tells_how_much_the_periods_differ():
    record = np.tile(periodic(5, 64), 4)
    assert periods.unlike(record, 4) == pytest.approx(0, abs=1e-6)
    noise = np.random.default_rng(0).normal(size=record.shape)
    noisy = periods.unlike(record + 0.1 * record.std() * noise, 4)[0]
    assert 0.05 < noisy < 0.15


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_hidden_periods_are_found(count):
    rng = np.random.default_rng(count)
    x = periodic(5, 640, count)[0]
    assert periods.hidden_periods(x + 1e-3 * x.std() * rng.normal(size=640)) == count


def test_limit_and_highest_harmonic():
    x = periodic(20, 128)
    assert periods.highest_harmonic(x) == 20
    assert periods.highest_harmonic(periods.limit(x, 7)) == 7
    np.testing.assert_allclose(periods.limit(x, 20), x, atol=1e-12)
