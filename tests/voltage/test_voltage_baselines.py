"""The plain models: exact where their law is exact, blind to the phase, and at the anchor's figures on real cores."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from vqtool.api import Baseline, DataSpec
from vqtool.errors import VqtoolError
from vqtool.parts.metrics.relative_error import RelativeError
from vqtool_voltage.baselines.faraday_law import FaradayLaw
from vqtool_voltage.baselines.impedance import Impedance
from vqtool_voltage.baselines.ridge import Ridge
from vqtool_voltage.data.magnet import Magnet
from vqtool_voltage.regression import Quadratic, everything

from .conftest import winding

EVERY = (FaradayLaw, Impedance, Ridge)


def errors(baseline: Baseline, data: Magnet) -> dict[str, float]:
    baseline.fit(data.rows("train"))
    batch = everything(data.rows(data.splits[2]))
    metric = RelativeError(data.spec)
    metric.update(x=batch["x"], x_hat=baseline.predict({k: v for k, v in batch.items() if k != "x"})["x_hat"])
    return dict(metric.compute())


@pytest.mark.parametrize("make", [FaradayLaw, lambda spec: Impedance(spec, harmonics=3)])
def test_models_that_contain_the_law_find_it(made, make: Callable[[DataSpec], Baseline]):
    assert errors(make(data.spec) if (data := Magnet(path=made())) else None, data)["error.p95"] < 2e-3


@pytest.mark.parametrize(
    ("make", "mean", "p95"), [(FaradayLaw, 0.658, 1.115), (Impedance, 0.201, 0.339), (Ridge, 0.119, 0.261)]
)
def test_the_figures_on_real_cores(sample: Magnet, make, mean, p95):
    found = errors(make(sample.spec), sample)
    assert found["error.mean"] == pytest.approx(mean, rel=0.02)
    assert found["error.p95"] == pytest.approx(p95, rel=0.03)


@pytest.mark.parametrize("make", EVERY)
def test_where_the_period_starts_does_not_matter(sample: Magnet, make):
    baseline = make(sample.spec)
    baseline.fit(sample.rows("train"))
    batch = sample.rows("test_random").__getitems__(list(range(0, 2000, 100)))
    shift = torch.randint(128, (20,), generator=torch.Generator().manual_seed(0))
    moved = batch | {
        "current": torch.stack([row.roll(int(s), -1) for row, s in zip(batch["current"], shift, strict=True)])
    }
    plain, turned = baseline.predict(batch)["x_hat"], baseline.predict(moved)["x_hat"]
    back = torch.stack([row.roll(-int(s), -1) for row, s in zip(turned, shift, strict=True)])
    torch.testing.assert_close(back, plain, rtol=1e-3, atol=1e-3 * float(plain.std()))


@pytest.mark.parametrize("make", EVERY)
def test_fewer_conditions_still_work(made, make):
    data = Magnet(path=made(), conditions=("freq_hz",))
    assert errors(make(data.spec), data)["error.mean"] < 0.5
    data = Magnet(path=made(), conditions=())
    assert errors(make(data.spec), data)["error.mean"] < 0.5


@pytest.mark.parametrize("make", EVERY)
def test_a_material_that_was_not_in_training_gives_finite_volts(made, make):
    mask = winding()["material"] == "stiff"
    data = Magnet(path=made(test_random=mask))
    assert np.isfinite(errors(make(data.spec), data)["error.mean"])


def test_without_scikit_learn_ridge_names_the_extra(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    data = Magnet(path=made())
    with pytest.raises(VqtoolError, match="scikit-learn") as caught:
        Ridge(data.spec).fit(data.rows("train"))
    assert "vqtool[voltage]" in caught.value.hint


def test_quadratic_features_span_all_products():
    meta = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    features = Quadratic(meta)(meta)
    assert features.shape == (50, 10)
    target = ((meta[:, 0] * meta[:, 2]) - 2 * meta[:, 1] ** 2 + meta[:, 0] + 5).double()[:, None]
    solution = torch.linalg.lstsq(features, target).solution
    torch.testing.assert_close(features @ solution, target, rtol=1e-5, atol=1e-5)
    assert Quadratic(meta[:, :0])(meta[:, :0]).shape == (50, 1)
