"""The relative error against hand-made answers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqtool.api import DataSpec, Field
from vqtool.parts.metrics.relative_error import RelativeError

SPEC = DataSpec({"x": Field((2, 8), "signal")})


def measure(x: torch.Tensor, x_hat: torch.Tensor, batch: int = 100) -> dict[str, float]:
    metric = RelativeError(SPEC)
    for a, b in zip(x.split(batch), x_hat.split(batch), strict=True):
        metric.update(x=a, x_hat=b)
    return dict(metric.compute())


def signals(n: int = 21, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, 8, generator=torch.Generator().manual_seed(seed))


def test_known_errors_give_known_figures():
    x = signals(21)
    share = torch.linspace(0, 0.2, 21)  # the error of each window, as a louder copy
    found = measure(x, x * (1 + share[:, None, None]))
    assert found["error.mean"] == pytest.approx(0.1, rel=1e-5)
    assert found["error.median"] == pytest.approx(0.1, rel=1e-5)
    assert found["error.p95"] == pytest.approx(0.19, rel=1e-5)
    assert found["gain_error.mean"] == pytest.approx(0.1, rel=1e-5)
    assert found["correlation.mean"] == pytest.approx(1)
    assert found["snr.db"] == pytest.approx(-10 * math.log10(float(share.square().mean())), rel=1e-5)


def test_an_error_without_a_gain_error_and_the_other_sign():
    x = signals()
    found = measure(x, -x)
    assert found["error.mean"] == pytest.approx(2)
    assert found["gain_error.mean"] == pytest.approx(0, abs=1e-6)
    assert found["correlation.mean"] == pytest.approx(-1)


@given(st.integers(1, 30), st.floats(1e-3, 1e3))
def test_the_batch_size_and_the_unit_do_not_matter(batch, unit):
    x, noise = signals(), 0.1 * signals(seed=1)
    plain, other = measure(x, x + noise), measure(unit * x, unit * (x + noise), batch)
    assert plain == pytest.approx(other, rel=1e-4)


def test_the_truth_has_no_error_and_a_finite_snr():
    found = measure(signals(), signals())
    assert found["error.p95"] == 0
    assert math.isfinite(found["snr.db"])


def test_silent_windows_are_left_out_and_counted():
    x = signals()
    x[:3] = 0
    found = measure(x, x + 0.1)
    assert found["error.silent"] == 3
    assert math.isfinite(found["error.mean"])
    assert measure(x[:3], x[:3]) == {"error.silent": 3}
    assert RelativeError(SPEC).compute() == {}


def test_a_wrong_shape_is_a_fault_of_the_caller():
    with pytest.raises(ValueError, match="shape"):
        RelativeError(SPEC).update(x=signals(), x_hat=signals()[:, :1])
