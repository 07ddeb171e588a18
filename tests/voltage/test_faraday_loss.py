"""The physics loss: its modes, what may move M, and that it is blind to what it should be blind to."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqtool.api import Batch, DataSpec
from vqtool.api.loss import reads
from vqtool.errors import VqtoolError
from vqtool_voltage.data.magnet import Magnet
from vqtool_voltage.fields import CONDITIONS, describe
from vqtool_voltage.losses.faraday import Faraday
from vqtool_voltage.physics import derivative

MODES, INDUCTANCES, SCHEMES, BANDS = (
    ("soft", "matched", "correlation"),
    ("learned", "closed-form"),
    ("central", "spectral", "forward"),
    (1, 5, "all"),
)
EVERY = list(product(MODES, INDUCTANCES, SCHEMES, BANDS))
TRUE = [1e-4, 3e-4]


def spec(**about: object) -> DataSpec:
    return DataSpec(describe(CONDITIONS, 64, ("soft", "stiff"), position=False), periodic=True, metadata=about)


def pair(scheme: str = "spectral", seed: int = 0, law: float = 1.0) -> Batch:
    """Pairs that keep the law exactly, or only by the share `law`."""
    generator = torch.Generator().manual_seed(seed)
    current = torch.randn(6, 1, 64, generator=generator)
    dt = 1 / (64 * (5e4 + 3e5 * torch.rand(6, generator=generator)))
    material = torch.tensor([0, 1, 0, 1, 0, 1])
    v = -torch.tensor(TRUE)[material][:, None, None] * derivative(current, dt, scheme)
    noise = torch.randn(v.shape, generator=generator) * v.std()
    return {"x": law * v + (1 - law) * noise, "current": current, "dt": dt, "material": material}


@pytest.mark.parametrize(("mode", "inductance", "scheme", "band"), EVERY)
def test_an_estimate_that_keeps_the_law_exactly_costs_nothing(mode, inductance, scheme, band):
    batch = pair(scheme)
    loss = Faraday(spec(inductance_h=TRUE), mode=mode, inductance=inductance, derivative=scheme, band=band)
    assert float(loss(estimate=batch["x"], **batch).detach()) < 1e-5


@pytest.mark.parametrize("inductance", INDUCTANCES)
def test_matched_is_zero_at_the_truth_where_the_law_is_far_off_and_soft_is_not(inductance):
    batch = pair(law=0.5)
    matched, soft = (
        Faraday(spec(inductance_h=TRUE), mode=mode, inductance=inductance, band="all")(estimate=batch["x"], **batch)
        for mode in ("matched", "soft")
    )
    assert float(matched.detach()) < 1e-6
    assert float(soft.detach()) > 0.1


@pytest.mark.parametrize("mode", ["soft", "matched"])
@pytest.mark.parametrize("inductance", INDUCTANCES)
def test_an_estimate_that_breaks_the_law_costs_and_gets_a_gradient(mode, inductance):
    batch = pair(law=0.9)
    estimate = (batch["x"].roll(9, -1)).requires_grad_()
    value = Faraday(spec(inductance_h=TRUE), mode=mode, inductance=inductance)(estimate=estimate, **batch)
    value.backward()
    assert float(value.detach()) > 0.05
    assert estimate.grad.abs().max() > 0


@given(st.integers(0, 99), st.integers(0, 63), st.floats(0.01, 100), st.sampled_from(EVERY))
def test_shift_and_scale_of_the_whole_circuit_change_nothing(seed, shift, scale, options):
    mode, inductance, scheme, band = options
    batch = pair(scheme, seed, law=0.8)
    loss = Faraday(spec(inductance_h=TRUE), mode=mode, inductance=inductance, derivative=scheme, band=band)
    estimate = batch["x"] + 0.1 * batch["x"].std() * torch.randn(
        6, 1, 64, generator=torch.Generator().manual_seed(seed)
    )

    def moved(x: Tensor) -> Tensor:
        return scale * x.roll(shift, -1)

    plain = loss(estimate=estimate, **batch)
    other = batch | {"x": moved(batch["x"]), "current": moved(batch["current"])}
    torch.testing.assert_close(loss(estimate=moved(estimate), **other), plain, rtol=1e-3, atol=1e-5)


def test_the_band_ignores_what_lies_above_it():
    batch, k = pair(law=0.8), torch.arange(64)
    loss = Faraday(spec(inductance_h=TRUE), mode="soft", band=2)
    ripple = batch["x"].std() * torch.cos(2 * torch.pi * 3 * k / 64)
    torch.testing.assert_close(loss(estimate=batch["x"] + ripple, **batch), loss(estimate=batch["x"], **batch))
    ripple = batch["x"].std() * torch.cos(2 * torch.pi * 2 * k / 64)
    assert (loss(estimate=batch["x"] + ripple, **batch) - loss(estimate=batch["x"], **batch)).abs() > 0.1


@pytest.mark.parametrize("mode", ["soft", "matched"])
def test_a_learned_m_is_found_from_the_measurement_and_not_bent_by_the_estimate(mode):
    batch = pair("central")
    loss = Faraday(spec(), mode=mode, band="all")  # starts at the nominal 0.2 mH for both
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss(estimate=torch.zeros_like(batch["x"]) + 1e-3 * batch["current"], **batch).backward()
        optimizer.step()
    torch.testing.assert_close(loss.log_inductance.detach().exp(), torch.tensor(TRUE), rtol=0.02, atol=0)


def test_m_starts_where_the_training_rows_put_it_and_only_a_learned_one_has_parameters():
    loss = Faraday(spec(inductance_h=[1e-3, 2e-3]))
    torch.testing.assert_close(loss.log_inductance.detach().exp(), torch.tensor([1e-3, 2e-3]))
    assert not list(Faraday(spec(), inductance="closed-form").parameters())
    assert not list(Faraday(spec(), mode="correlation").parameters())
    assert Faraday(spec(inductance_h=[-1.0, 1e-3])).log_inductance.isfinite().all()


def test_correlation_needs_no_gain_but_knows_the_sign():
    batch = pair("central")
    loss = Faraday(spec(), mode="correlation", band="all")
    assert float(loss(estimate=50 * batch["x"], **batch)) < 1e-5
    assert float(loss(estimate=-batch["x"], **batch)) == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize("shape", [(6,), (6, 1, 64)])
def test_the_position_factor_multiplies_the_law(shape):
    batch, factor = pair("central"), torch.rand(shape, generator=torch.Generator().manual_seed(5)) + 0.5
    moved = batch | {"x": batch["x"] * (factor if factor.dim() == 3 else factor[:, None, None])}
    loss = Faraday(spec(inductance_h=TRUE), mode="soft", band="all")
    assert float(loss(estimate=moved["x"], **moved).detach()) > 0.01
    assert float(loss(estimate=moved["x"], **moved, x_position=factor).detach()) < 1e-6


def test_a_silent_estimate_and_half_precision_give_finite_gradients():
    batch = pair()
    for estimate in (torch.zeros(6, 1, 64), batch["x"].bfloat16()):
        for mode in MODES:
            leaf = estimate.clone().requires_grad_()
            value = Faraday(spec(), mode=mode)(estimate=leaf, **batch)
            value.backward()
            assert value.isfinite()
            assert leaf.grad.isfinite().all()


def test_a_band_beyond_nyquist_is_refused():
    with pytest.raises(VqtoolError, match="32 harmonics"):
        Faraday(spec(), band=33)


def test_it_reads_names_that_task_and_data_provide():
    needs, may = reads(Faraday.forward)
    assert needs == {"estimate", "x", "current"}
    assert may == {"frequency", "dt", "material", "x_position"}


def test_on_the_real_cores_the_law_itself_is_a_quarter_off(sample: Magnet):
    rows = sample.rows("test_random")
    batch = rows.__getitems__(list(range(len(rows))))
    batch = {name: batch[name] for name in ("x", "current", "dt", "material")}
    soft = float(Faraday(sample.spec, mode="soft")(estimate=batch["x"], **batch).detach())
    assert 0.08 < soft < 0.16
    assert float(Faraday(sample.spec, mode="matched")(estimate=batch["x"], **batch).detach()) < 1e-6
