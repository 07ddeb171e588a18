"""Reversible instance normalisation: an exact round trip, no absolute unit, and no look at the future."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqtool.api import DataSpec, Field
from vqtool_forecast.norms.revin import RevIn


def spec(channels: int = 1, length: int = 24) -> DataSpec:
    return DataSpec({"x": Field((channels, length), "signal"), "future": Field((channels, 12))})


def wave(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


SERIES = {
    "normal": wave(3, 1, 24),
    "constant": torch.full((3, 1, 24), 7.3),
    "zero": torch.zeros(3, 1, 24),
    "nearly constant": 1000 + 1e-3 * wave(3, 1, 24),
    "a single sample": torch.tensor([[[5.5]], [[-2.0]], [[0.0]]]),
    "tiny": 1e-20 * wave(3, 1, 24),
    "huge": 1e20 * wave(3, 1, 24),
    "several channels": wave(3, 4, 24) * torch.tensor([1.0, 1e-3, 1e6, 0.0])[:, None],
}


@pytest.mark.parametrize("name", SERIES)
def test_the_round_trip_gives_back_what_went_in(name: str) -> None:
    x = SERIES[name]
    norm = RevIn(spec(x.shape[1], x.shape[2]))
    framed, sent = norm({"x": x})
    assert framed["x"].isfinite().all()
    assert sent.shape == (len(x), len(norm.sends))
    torch.testing.assert_close(norm.invert(framed["x"], {}, sent), x, rtol=1e-5, atol=1e-6 * float(x.abs().max()))


@given(scale=st.sampled_from([1e-3, 1.0, 1e6]), shift=st.floats(-100, 100), seed=st.integers(0, 99))
def test_no_unit_changes_the_frame(scale: float, shift: float, seed: int) -> None:
    x = wave(2, 1, 24, seed=seed)
    norm = RevIn(spec())
    one, other = norm({"x": x})[0]["x"], norm({"x": scale * (x + shift)})[0]["x"]
    torch.testing.assert_close(other, one, rtol=1e-3, atol=2e-4)
    centre, size = norm.future_stats({"x": x}, 5)
    there, larger = norm.future_stats({"x": scale * (x + shift)}, 5)
    torch.testing.assert_close(there, scale * (centre + shift), rtol=1e-4, atol=1e-4 * scale)
    assert size.shape == (2, 1, 5)
    torch.testing.assert_close(larger, scale * size, rtol=1e-3, atol=0)


def test_the_frame_has_mean_zero_and_deviation_one() -> None:
    framed = RevIn(spec())({"x": 50 + 9 * wave(4, 1, 24)})[0]["x"]
    torch.testing.assert_close(framed.mean(-1), torch.zeros(4, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(framed.std(-1, correction=0), torch.ones(4, 1))


def test_range_and_nearly_the_mean_survive_whatever_is_decoded() -> None:
    x = 1e4 + 30 * wave(5, 2, 24)
    norm = RevIn(spec(2))
    decoded = norm.invert(wave(5, 2, 24, seed=3), {}, norm({"x": x})[1])
    span = x.amax(-1) - x.amin(-1)
    assert float(((decoded.mean(-1) - x.mean(-1)).abs() / span).max()) < 0.03
    assert torch.equal(decoded.amax(-1), x.amax(-1))
    assert torch.equal(decoded.amin(-1), x.amin(-1))


def test_statistics_are_of_the_history_and_take_no_gradient() -> None:
    x = wave(2, 1, 24).requires_grad_()
    norm = RevIn(spec())
    future = torch.full((2, 1, 12), torch.nan)
    framed, sent = norm({"x": x, "future": future})
    assert framed["x"].isfinite().all()
    assert not sent.requires_grad
    assert torch.equal(norm.future_stats({"x": x, "future": future}, 3)[0], norm.future_stats({"x": x}, 3)[0])


def test_the_history_moves_on() -> None:
    x = wave(2, 1, 24)
    moved = RevIn(spec()).append({"x": x, "at": torch.tensor([3, 4])}, torch.ones(2, 1, 30))
    assert torch.equal(moved["x"], torch.ones(2, 1, 24))
    moved = RevIn(spec()).append({"x": x}, torch.ones(2, 1, 4))
    assert torch.equal(moved["x"][..., :20], x[..., 4:])
