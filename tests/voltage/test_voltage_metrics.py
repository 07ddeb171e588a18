"""The residual and energy metrics on windings whose answer is known, and on the bundled measurements."""

from __future__ import annotations

import pytest
import torch

from vqtool.api.loss import reads
from vqtool_voltage.data.magnet import Magnet
from vqtool_voltage.metrics.energy import Energy
from vqtool_voltage.metrics.faraday_residual import FaradayResidual

NAMES = ("x", "current", "dt", "material")


def held_out(data: Magnet) -> dict[str, torch.Tensor]:
    rows = data.rows("test_random")
    batch = rows.__getitems__(list(range(len(rows))))
    return {name: batch[name] for name in NAMES}


def test_the_residual_of_exact_windings_is_zero_and_of_a_turned_estimate_is_not(made):
    data = Magnet(path=made())
    batch = held_out(data)
    exact, turned = FaradayResidual(data.spec), FaradayResidual(data.spec)
    exact.update(x_hat=batch["x"], **batch)
    turned.update(x_hat=batch["x"].roll(8, -1), **batch)  # a quarter of a period: at right angles to the law
    assert max(abs(value) for value in exact.compute().values()) < 1e-4
    assert turned.compute()["residual.real"] < 1e-4
    assert turned.compute()["residual.model"] == pytest.approx(2**0.5, rel=1e-3)


def test_the_real_residual_is_the_anchors_and_does_not_depend_on_the_estimate_or_the_batches(sample: Magnet):
    batch = held_out(sample)
    whole, parts = FaradayResidual(sample.spec), FaradayResidual(sample.spec)
    whole.update(x_hat=batch["x"], **batch)
    for at in torch.arange(len(batch["x"])).split(300):
        piece = {name: value[at] for name, value in batch.items()}
        parts.update(x_hat=2 * piece["x"] + 1, **piece)
    figures = whole.compute()
    assert figures["residual.real"] == pytest.approx(0.251, abs=0.005)
    assert figures["residual.real.all"] == pytest.approx(0.658, abs=0.01)
    assert figures["residual.excess"] == pytest.approx(0, abs=1e-9)
    assert parts.compute()["residual.real"] == pytest.approx(figures["residual.real"], abs=1e-9)
    assert parts.compute()["residual.excess"] != pytest.approx(0, abs=1e-3)


def test_the_position_factor_enters(made):
    data = Magnet(path=made())
    batch = held_out(data)
    factor = torch.linspace(0.5, 2, len(batch["x"]))
    moved = batch | {"x": batch["x"] * factor[:, None, None]}
    metric = FaradayResidual(data.spec)
    metric.update(x_hat=moved["x"], **moved, x_position=factor)
    assert metric.compute()["residual.real"] < 1e-4


def test_energy_is_zero_for_the_truth_and_scales_with_the_estimate(sample: Magnet):
    batch = held_out(sample)
    truth, louder = Energy(sample.spec), Energy(sample.spec)
    truth.update(x=batch["x"], x_hat=batch["x"], current=batch["current"])
    louder.update(x=batch["x"], x_hat=1.1 * batch["x"], current=batch["current"])
    assert truth.compute()["energy_error.p95"] == 0
    assert louder.compute()["energy_error.median"] == pytest.approx(0.1, rel=1e-4)


def test_metrics_that_saw_nothing_say_nothing(sample: Magnet):
    assert not FaradayResidual(sample.spec).compute()
    assert not Energy(sample.spec).compute()
    assert reads(FaradayResidual.update)[0] == {"x", "x_hat", "current"}
