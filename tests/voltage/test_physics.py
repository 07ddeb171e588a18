"""Laws of the circular derivatives, the residual and the closed-form inductance (anchor invariants 9 to 12)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqtool_voltage import physics

SCHEMES = ("central", "spectral", "forward")
schemes = st.sampled_from(SCHEMES)
seeds = st.integers(0, 10_000)
frequencies = st.floats(1e3, 1e7)
lengths = st.sampled_from([16, 31, 128])


def waves(seed: int, n: int = 3, length: int = 64) -> Tensor:
    """Random periodic waveforms [n, 1, L] in float64."""
    return torch.randn(n, 1, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def steps(frequency: float, length: int, n: int = 3) -> Tensor:
    return torch.full((n,), 1 / (frequency * length), dtype=torch.float64)


@given(seeds, schemes, frequencies, lengths, st.floats(1e-6, 1e-2), st.integers(0, 200))
def test_the_residual_of_an_exact_law_is_zero_for_every_frequency_and_shift(seed, scheme, f, length, m, shift):
    current = waves(seed, length=length)
    dt = steps(f, length)
    v = -m * physics.derivative(current, dt, scheme)
    slope = physics.derivative(current.roll(shift, -1), dt, scheme)
    residual = physics.relative_residual(v.roll(shift, -1), slope, torch.tensor(m, dtype=torch.float64))
    assert residual.max() < 1e-9


@given(seeds, schemes, frequencies, st.integers(0, 63), st.floats(0.01, 100))
def test_the_relative_residual_ignores_shift_and_scale(seed, scheme, f, shift, scale):
    v, current, dt = waves(seed), waves(seed + 1), steps(f, 64)
    m = torch.full((3,), 1e-4, dtype=torch.float64)
    plain = physics.relative_residual(v, physics.derivative(current, dt, scheme), m)
    moved = physics.derivative(current.roll(shift, -1) * scale, dt, scheme)
    torch.testing.assert_close(physics.relative_residual(v.roll(shift, -1) * scale, moved, m), plain)


@given(seeds, schemes, frequencies)
def test_twice_the_frequency_doubles_the_derivative(seed, scheme, f):
    x = waves(seed)
    once, twice = (physics.derivative(x, steps(k * f, 64), scheme) for k in (1, 2))
    torch.testing.assert_close(twice, 2 * once)


@given(seeds, schemes, lengths)
def test_a_derivative_sums_to_zero_and_a_constant_has_none(seed, scheme, length):
    dt = steps(1.0, length)
    slope = physics.derivative(waves(seed, length=length), dt, scheme)
    assert slope.sum(-1).abs().max() < 1e-9 * slope.abs().max() * length
    assert physics.derivative(torch.full((3, 1, length), 7.0, dtype=torch.float64), dt, scheme).abs().max() < 1e-9


@given(st.integers(1, 63), frequencies)
def test_the_spectral_derivative_of_a_harmonic_is_exact_and_the_central_one_damped_as_documented(h, f):
    length = 128
    angle = 2 * math.pi * h * torch.arange(length, dtype=torch.float64) / length
    x, truth = angle.sin()[None, None], (2 * math.pi * h * f * angle.cos())[None, None]
    dt = steps(f, length, 1)
    torch.testing.assert_close(physics.derivative(x, dt, "spectral"), truth, rtol=0, atol=1e-9 * h * f * length)
    damping = math.sin(2 * math.pi * h / length) / (2 * math.pi * h / length)
    torch.testing.assert_close(
        physics.derivative(x, dt, "central"), damping * truth, rtol=0, atol=1e-9 * h * f * length
    )


@given(seeds, st.floats(1e-6, 1.0), schemes)
def test_the_closed_form_finds_m_and_turns_its_sign_with_the_polarity(seed, m, scheme):
    slope = physics.derivative(waves(seed), steps(1e5, 64), scheme)
    truth = torch.full((3,), m, dtype=torch.float64)
    torch.testing.assert_close(physics.closed_form_inductance(-m * slope, slope), truth)
    torch.testing.assert_close(physics.closed_form_inductance(m * slope, slope), -truth)


@given(seeds)
def test_no_other_m_beats_the_closed_form(seed):
    v, slope = waves(seed), waves(seed + 1)
    best = physics.closed_form_inductance(v, slope)
    for factor in (0.9, 1.1):
        assert (physics.relative_residual(v, slope, best) <= physics.relative_residual(v, slope, best * factor)).all()


def test_a_current_that_never_changes_has_no_inductance_and_no_nan():
    v = waves(0).requires_grad_()
    m = physics.closed_form_inductance(v, torch.zeros(3, 1, 64, dtype=torch.float64))
    m.sum().backward()
    assert (m == 0).all()
    assert v.grad.isfinite().all()


@given(seeds)
def test_the_pooled_inductance_minimises_the_sum_of_relative_squares(seed):
    v, slope, group = waves(seed, 6), waves(seed + 1, 6), torch.tensor([0, 0, 0, 2, 2, 2])
    m = physics.pooled_inductance(v, slope, group, 3)

    def total(value: Tensor) -> Tensor:
        squares = physics.relative_residual(v, slope, value[group]).square()
        return torch.zeros(3, dtype=squares.dtype).index_add(0, group, squares)

    for factor in (0.99, 1.01):
        assert (total(m)[[0, 2]] < total(m * factor)[[0, 2]]).all()
    one = physics.pooled_inductance(v, slope, torch.zeros(6, dtype=torch.long), 1)
    torch.testing.assert_close(m[1], one[0])


@given(seeds, st.floats(0.01, 1e4))
def test_agreement_ignores_a_positive_gain_and_knows_the_sign(seed, gain):
    v, slope = waves(seed), waves(seed + 1)
    plain = physics.agreement(v, slope)
    torch.testing.assert_close(physics.agreement(gain * v, slope), plain)
    torch.testing.assert_close(physics.agreement(-gain * v, slope), -plain)
    torch.testing.assert_close(physics.agreement(-slope, slope), torch.ones(3, dtype=torch.float64))


@given(seeds, st.integers(1, 31))
def test_the_band_projection_is_orthogonal_and_keeps_exactly_its_harmonics(seed, harmonics):
    x = waves(seed)
    low = physics.band(x, harmonics)
    torch.testing.assert_close(physics.band(low, harmonics), low)
    assert physics.inner(low, x - low).abs().max() < 1e-9 * physics.inner(x, x).max()
    size = torch.fft.rfft(low).abs()
    assert size[..., harmonics + 1 :].max() < 1e-9
    assert size[..., 0].max() < 1e-9
    torch.testing.assert_close(torch.fft.rfft(low)[..., 1 : harmonics + 1], torch.fft.rfft(x)[..., 1 : harmonics + 1])


def test_a_band_beyond_nyquist_is_refused_and_none_changes_nothing():
    x = waves(0)
    assert physics.band(x, None) is x
    with pytest.raises(ValueError, match="1 to 32"):
        physics.band(x, 33)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_waveform_has_its_own_step(scheme):
    x = waves(3, n=1).expand(2, 1, 64)
    dt = torch.tensor([1e-7, 2e-7], dtype=torch.float64)
    slow, fast = physics.derivative(x, dt, scheme).flip(0)
    torch.testing.assert_close(fast, 2 * slow)


def test_the_norm_of_nothing_has_a_finite_gradient():
    x = torch.zeros(2, 1, 8, requires_grad=True)
    physics.norm(x).sum().backward()
    assert (x.grad == 0).all()
