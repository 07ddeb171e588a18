"""The impedance norm: exact but for its grid, blind to where a period starts, and fitted on training rows only."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqtool.api import Batch, DataSpec, TensorRows
from vqtool_voltage import admittance
from vqtool_voltage.data.magnet import Magnet
from vqtool_voltage.fields import describe
from vqtool_voltage.norms.impedance import ImpedanceNorm

LENGTH = 64
SPEC = DataSpec(
    describe(("freq_hz", "temp_c", "i_pk_a", "material"), LENGTH, ("a", "b"), position=False), periodic=True
)


def rows(n: int = 60, seed: int = 0, inductance: float = 2e-4) -> Batch:
    """Ideal inductors: v = -M dI/dt with two harmonics, M twice as large for the second material."""
    g = torch.Generator().manual_seed(seed)
    frequency = 5e4 + 3e5 * torch.rand(n, generator=g)
    phase, size = 6.28 * torch.rand(n, generator=g), 0.1 + torch.rand(n, generator=g)
    angle = 2 * math.pi * torch.arange(LENGTH) / LENGTH + phase[:, None]
    current = size[:, None] * (angle.sin() + 0.2 * (3 * angle).cos())
    slope = size[:, None] * (angle.cos() - 0.6 * (3 * angle).sin()) * (2 * math.pi * frequency[:, None])
    material = torch.arange(n) % 2
    volts = -inductance * (1 + material[:, None]) * slope
    scalars = [frequency.log(), 25 + 50 * torch.rand(n, generator=g), size.log()]
    return {
        "x": volts[:, None],
        "current": current[:, None],
        "meta": torch.stack(scalars, 1),
        "material": material,
        "dt": 1 / (frequency * LENGTH),
        "frequency": frequency,
    }


def fitted(batch: Batch) -> ImpedanceNorm:
    norm = ImpedanceNorm(SPEC, harmonics=5)
    norm.fit(TensorRows(batch))
    return norm


def test_ideal_inductors_are_predicted_and_nothing_is_left_to_send() -> None:
    batch = rows()
    norm = fitted(batch)
    other = rows(20, seed=1)
    predicted = norm._predicted(other)
    torch.testing.assert_close(predicted, other["x"], rtol=0, atol=2e-3 * float(other["x"].abs().max()))
    _, sent = norm(other)
    left = sent * norm.scale + norm.centre
    assert left.abs().max() < 3e-3


@given(st.integers(0, LENGTH - 1))
def test_where_a_period_starts_changes_nothing(shift: int) -> None:
    batch = rows()
    norm = fitted(batch)
    rolled = batch | {name: batch[name].roll(shift, -1) for name in ("x", "current")}
    (one, sent), (two, sent_two) = norm(batch), norm(rolled)
    torch.testing.assert_close(one["x"], two["x"], rtol=0, atol=2e-3)
    torch.testing.assert_close(one["current"], two["current"], rtol=0, atol=1e-4 * float(one["current"].abs().max()))
    torch.testing.assert_close(sent * norm.scale, sent_two * norm.scale, rtol=0, atol=3e-3)  # a step of the grid


@given(st.floats(0.01, 100))
def test_a_gain_changes_what_is_sent_and_not_the_shape(gain: float) -> None:
    norm = fitted(rows())
    batch = rows(8, seed=2)
    louder = batch | {"x": batch["x"] * gain}
    torch.testing.assert_close(norm(batch)[0]["x"], norm(louder)[0]["x"], rtol=1e-4, atol=1e-5)
    back = norm.invert(*reversed_arguments(norm, batch))
    torch.testing.assert_close(back, batch["x"], rtol=0, atol=5e-3 * float(batch["x"].abs().max()))


def reversed_arguments(norm: ImpedanceNorm, batch: Batch) -> tuple[torch.Tensor, Batch, torch.Tensor]:
    normed, sent = norm(batch)
    return normed["x"], batch, sent


def test_inverting_reads_the_condition_only() -> None:
    norm = fitted(rows())
    batch = rows(8, seed=3)
    normed, sent = norm(batch)
    blind = {name: value for name, value in batch.items() if name != "x"}
    torch.testing.assert_close(norm.invert(normed["x"], blind, sent), norm.invert(normed["x"], batch, sent))
    torch.testing.assert_close(norm.condition(blind)["current"], normed["current"])


def test_measured_voltages_come_back(sample: Magnet) -> None:
    norm = ImpedanceNorm(sample.spec)
    norm.fit(sample.rows("train"))
    held_out = sample.rows(sample.splits[-1])
    batch = held_out.__getitems__(list(range(min(64, len(held_out)))))
    back = norm.invert(*reversed_arguments(norm, batch))
    error = (back - batch["x"]).square().mean(-1).sqrt() / batch["x"].square().mean(-1).sqrt()
    assert error.mean() < 4e-3  # 12 bits each for gain and phase


@given(st.floats(0, 6e6))
def test_hats_are_a_partition_of_one(frequency: float) -> None:
    basis = admittance.hats(torch.tensor([frequency], dtype=torch.float64))
    assert basis.sum() == pytest.approx(1)
    assert (basis >= 0).all()
    assert (basis > 0).sum() <= 2


def test_the_fit_finds_the_admittance_that_made_the_data() -> None:
    g = torch.Generator().manual_seed(0)
    n, harmonics = 400, 7
    frequency = 5e4 + 3.5e5 * torch.rand(n, generator=g, dtype=torch.float64)
    t, a = torch.randn(2, n, generator=g, dtype=torch.float64)
    design = admittance.design(frequency, t, a, harmonics)
    true = (3e3 + 2e3j) * torch.ones(n, harmonics) + 1e3 * t[:, None]
    voltage = torch.randn(n, harmonics, 2, generator=g, dtype=torch.float64)
    voltage = torch.view_as_complex(voltage)
    beta = admittance.fit(design, voltage, -true * voltage)
    found = (design.to(beta.dtype) * beta).sum(-1)
    assert ((found - true).abs() / true.abs()).mean() < 0.02


def test_in_real_numbers_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, other = fitted(rows()), rows(20, seed=1)
    normed, sent = norm(other)
    volts = norm.invert(normed["x"], other, sent)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    normed_, sent_ = norm(other)
    torch.testing.assert_close(normed_["x"], normed["x"], rtol=0, atol=1e-5)
    torch.testing.assert_close(normed_["current"], normed["current"], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sent_, sent, rtol=0, atol=1e-4)
    torch.testing.assert_close(norm.invert(normed["x"], other, sent), volts, rtol=1e-4, atol=1e-4)
