"""Every schedule: its ends, its formula at a point, its bounds, its direction, no overflow."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtool.api import Schedule
from vqtool.errors import VqtoolError
from vqtool.parts.schedules.constant import Constant
from vqtool.parts.schedules.exponential import Exponential
from vqtool.parts.schedules.geometric import Geometric
from vqtool.parts.schedules.inverse_sigmoid import InverseSigmoid
from vqtool.parts.schedules.ramps import Cosine, Linear

value = st.floats(-1e3, 1e3)
positive = st.floats(1e-3, 1e3)
share = st.floats(0.0, 1.0)


def run(schedule: Schedule, steps: int = 41, per_epoch: int = 4) -> list[float]:
    return [schedule(step / (steps - 1), step // per_epoch, step) for step in range(steps)]


def check_between(values: list[float], low: float, high: float) -> None:
    slack = 1e-12 * max(abs(low), abs(high), 1.0)
    assert all(low - slack <= v <= high + slack for v in values)


def check_direction(values: list[float], up: bool) -> None:
    slack = 1e-12 * max(abs(v) for v in values)
    assert all((b >= a - slack) if up else (b <= a + slack) for a, b in pairwise(values))


@pytest.mark.parametrize("kind", [Linear, Cosine])
@given(from_=value, to=value, ends=st.tuples(share, share).map(sorted))
def test_from_one_value_to_another(kind, from_, to, ends):
    schedule = kind(from_=from_, to=to, start=ends[0], end=ends[1])
    values = run(schedule)
    check_between(values, min(from_, to), max(from_, to))
    check_direction(values, to >= from_)
    assert values[-1] == to
    assert schedule(ends[1], 0, 0) == to
    if ends[0] < ends[1]:
        assert schedule(ends[0], 0, 0) == from_
        assert schedule(sum(ends) / 2, 0, 0) == pytest.approx((from_ + to) / 2, abs=1e-9 * (abs(from_) + abs(to) + 1))


def test_linear_and_cosine_differ_where_they_should():
    assert Linear(from_=0.0, to=1.0)(0.25, 0, 0) == pytest.approx(0.25)
    assert Cosine(from_=0.0, to=1.0)(0.25, 0, 0) == pytest.approx((1 - math.cos(math.pi / 4)) / 2)


@given(k=st.floats(1.0, 1e4), cap=share, step=st.integers(0, 10**9))
def test_inverse_sigmoid(k, cap, step):
    schedule = InverseSigmoid(k=k, cap=cap)
    assert schedule(0.0, 0, 0) == pytest.approx(cap * (1 - k / (k + 1)))
    check_between([schedule(0.0, 0, step)], 0.0, cap)
    check_direction([schedule(0.0, 0, n) for n in range(0, 40 * int(k), max(1, int(k)))], up=True)
    if step / k < 700:
        assert schedule(0.0, 0, step) == pytest.approx(cap * (1 - k / (k + math.exp(step / k))), abs=1e-12)


@given(k=st.floats(1e-6, 1 - 1e-9), cap=share, step=st.integers(0, 10**9))
def test_exponential(k, cap, step):
    schedule = Exponential(k=k, cap=cap)
    assert schedule(0.0, 0, 0) == 0.0
    assert schedule(0.0, 0, 1) == pytest.approx(cap * (1 - k))
    check_between([schedule(0.0, 0, step)], 0.0, cap)
    check_direction(run(schedule), up=True)


@given(from_=positive, to=positive)
def test_geometric_over_the_stage(from_, to):
    schedule = Geometric(from_=from_, to=to)
    values = run(schedule)
    check_between(values, min(from_, to), max(from_, to))
    check_direction(values, to >= from_)
    assert values[0] == pytest.approx(from_)
    assert values[-1] == to
    assert schedule(0.5, 0, 0) == pytest.approx(math.sqrt(from_ * to))


@given(
    from_=positive, to=positive, ratio=st.floats(0.5, 0.999), epoch=st.integers(0, 10**6), step=st.integers(0, 10**9)
)
def test_geometric_by_a_ratio(from_, to, ratio, epoch, step):
    low, high = sorted((from_, to))
    by_step = Geometric(from_=high, to=low, ratio=ratio)
    by_epoch = Geometric(from_=high, to=low, ratio=ratio, per="epoch")
    assert by_step(0.0, epoch, step) == pytest.approx(max(low, high * ratio**step))
    assert by_epoch(0.0, epoch, step) == pytest.approx(max(low, high * ratio**epoch))
    check_between([by_step(1.0, epoch, step)], low, high)


def test_the_wav2vec_temperature():
    schedule = Geometric(from_=2.0, to=0.5, ratio=0.999995)
    assert schedule(0.0, 0, 0) == 2.0
    assert schedule(0.5, 9, 100_000) == pytest.approx(2 * 0.999995**100_000)
    assert schedule(0.5, 9, 10**6) == 0.5


@given(v=value)
def test_constant(v):
    assert set(run(Constant(value=v))) == {v}


def test_what_cannot_be_is_refused():
    for kind in (Linear, Cosine):
        with pytest.raises(VqtoolError, match="before it starts"):
            kind(from_=0.0, to=1.0, start=0.6, end=0.4)
    with pytest.raises(VqtoolError, match="never leads"):
        Geometric(from_=2.0, to=0.5, ratio=1.1)
    with pytest.raises(VqtoolError, match="never leads"):
        Geometric(from_=0.5, to=2.0, ratio=0.9)
