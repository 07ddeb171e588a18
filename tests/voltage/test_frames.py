"""Laws of the fundamental's phase and of fractional rotation."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqtool_voltage import reals
from vqtool_voltage.frames import fundamental, rotate

seeds = st.integers(0, 10_000)
lengths = st.sampled_from([16, 31, 128])
angles = st.floats(-10, 10)


def waves(seed: int, length: int, channels: int = 1) -> Tensor:
    return torch.randn(4, channels, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.floats(0.01, 100), st.floats(-3, 3), lengths)
def test_the_fundamental_is_the_peak_value_and_phase(size, phase, length):
    k = torch.arange(length, dtype=torch.float64)
    x = size * torch.cos(2 * math.pi * k / length + phase) + 5 + torch.cos(4 * math.pi * k / length)
    a = fundamental(x)
    assert abs(float(a.abs()) - size) < 1e-9 * (size + 10)
    assert abs(complex(a) - size * complex(math.cos(phase), math.sin(phase))) < 1e-9 * (size + 10)


@given(seeds, lengths)
def test_rotation_by_its_own_phase_brings_the_fundamental_to_zero(seed, length):
    x = waves(seed, length)
    turned = fundamental(rotate(x, fundamental(x)[:, 0].angle()))
    torch.testing.assert_close(turned.real, fundamental(x).abs())
    assert turned.imag.abs().max() < 1e-9


@given(seeds, lengths, st.lists(angles, min_size=4, max_size=4))
def test_rotation_can_be_undone_and_keeps_the_norm(seed, length, phase):
    x, p = waves(seed, length, 2), torch.tensor(phase, dtype=torch.float64)
    there = rotate(x, p)
    torch.testing.assert_close(rotate(there, -p), x)
    torch.testing.assert_close(there.norm(dim=-1), x.norm(dim=-1))


@given(seeds, lengths, st.integers(-40, 40))
def test_rotation_by_whole_samples_is_a_roll_also_at_nyquist(seed, length, shift):
    x = waves(seed, length)
    phase = torch.full((4,), 2 * math.pi * shift / length, dtype=torch.float64)
    torch.testing.assert_close(rotate(x, phase), x.roll(shift, -1))


@given(seeds, st.integers(0, 127))
def test_the_frame_of_the_current_does_not_depend_on_where_the_period_starts(seed, shift):
    current, voltage = waves(seed, 128), waves(seed + 1, 128)

    def framed(i: Tensor, v: Tensor) -> Tensor:
        return rotate(v, fundamental(i)[:, 0].angle())

    moved = framed(current.roll(shift, -1), voltage.roll(shift, -1))
    difference = torch.fft.rfft(moved - framed(current, voltage)).abs()
    assert difference[..., :-1].max() < 1e-6


def test_rotation_in_single_precision_is_undone_to_single_precision():
    x = waves(0, 128).float()
    p = torch.tensor([0.1, -3.1, 2.0, 3.14159])
    torch.testing.assert_close(rotate(rotate(x, p), -p), x, rtol=1e-4, atol=1e-5)


def test_gradients_pass_through_a_rotation_unchanged_in_norm():
    x = waves(1, 32).requires_grad_()
    weight = waves(2, 32)
    (rotate(x, torch.tensor([0.3, 1.0, 2.0, -1.0])) * weight).sum().backward()
    torch.testing.assert_close(x.grad.norm(dim=-1), weight.norm(dim=-1))


@given(seeds, lengths, st.lists(angles, min_size=4, max_size=4))
def test_in_real_numbers_it_is_the_same(seed, length, phases):
    """What exporters are given in place of complex numbers."""
    x, phase = waves(seed, length, 2), torch.tensor(phases, dtype=torch.float64)
    torch.testing.assert_close(reals.rotate(x, phase), rotate(x, phase), rtol=0, atol=1e-9)
    torch.testing.assert_close(reals.phase_of(x), fundamental(x).angle(), rtol=0, atol=1e-9)
