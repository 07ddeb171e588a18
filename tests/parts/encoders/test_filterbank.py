"""The filterbank encoder: its wavelets' bands, energies in their place, means before and behind, any length."""

from __future__ import annotations

import math

import pytest
import torch

from vqtool.api import Condition
from vqtool.errors import VqtoolError
from vqtool.parts.encoders import filterbank
from vqtool.parts.encoders.filterbank import FilterbankEncoder, leaky_means, wavelets


def encoder(**more: object) -> FilterbankEncoder:
    torch.manual_seed(0)
    options = {"dim": 8, "width": 16, "bands": 8, "kernel": 32, "memory_dim": 4, **more}
    return FilterbankEncoder(2, 320, 0, **options).eval()


@pytest.mark.parametrize(("length", "tokens"), [(320, 10), (321, 11), (20, 1), (3001, 94)])
def test_a_token_for_every_stride_begun(length, tokens):
    assert encoder()(torch.randn(3, 2, length)).shape == (3, tokens, 8)


def test_each_wavelet_hears_its_own_band():
    bands, kernel = 8, 96
    bank = torch.view_as_complex(wavelets(bands, kernel).view(2, bands, kernel).permute(1, 2, 0).contiguous())
    heard = torch.fft.fft(bank, 960).abs().argmax(1) / 960
    wanted = torch.logspace(math.log10(1.5 / kernel), math.log10(0.45), bands)
    torch.testing.assert_close(heard.double(), wanted.double(), rtol=0.03, atol=2e-3)
    assert torch.allclose(bank.abs().square().sum(1), torch.ones(bands))


def test_energy_is_where_the_signal_is_and_grows_by_its_decibels():
    part = encoder(floor=1e-12)
    x = torch.zeros(1, 2, 320)
    x[0, 1, 200:208] = torch.randn(8)
    one, ten = part.energies(x, 40), part.energies(10 * x, 40)
    assert int(one[0, 8:].mean(0).argmax()) == pytest.approx(25, abs=1)
    assert bool((one[0, :8] == one[0, 0, 0]).all())  # the other channel is silent
    loud = one[0, 8:, 25]
    torch.testing.assert_close(ten[0, 8:, 25] - loud, torch.full_like(loud, math.log(100) / 4), rtol=1e-3, atol=1e-3)


def test_the_sign_of_the_signal_does_not_matter():
    x = torch.randn(1, 2, 320)
    torch.testing.assert_close(encoder()(x), encoder()(-x))


def test_a_later_signal_gives_later_tokens():
    part = encoder(memory=())
    x = torch.zeros(1, 2, 640)
    x[..., 200:300] = torch.randn(2, 100)
    torch.testing.assert_close(part(x.roll(64, -1))[:, 5:18], part(x)[:, 3:16], rtol=1e-4, atol=1e-5)


def means_by_hand(x: torch.Tensor, time: float, before: bool) -> torch.Tensor:
    rows = []
    for t in range(len(x)):
        there = list(range(t)) if before else list(range(t + 1, len(x)))
        weights = [math.exp(-abs(t - j) / time) for j in there]
        rows.append(sum(w * x[j] for w, j in zip(weights, there, strict=True)) / sum(weights) if there else x[t])
    return torch.stack(rows)


def test_leaky_means_are_of_what_was_and_of_what_will_be():
    torch.manual_seed(0)
    x = torch.randn(2, 12, 3, dtype=torch.double)
    result = leaky_means(x, (2.0, 6.0)).unflatten(2, (4, 3))
    for row in range(2):
        for place, (time, before) in enumerate([(2.0, True), (6.0, True), (2.0, False), (6.0, False)]):
            expected = means_by_hand(x[row], time, before)
            torch.testing.assert_close(result[row, :, place], expected, rtol=1e-4, atol=1e-5)


def test_means_before_do_not_see_behind():
    x = torch.randn(1, 30, 2)
    other = x.clone()
    other[:, 20:] += 5
    before, after = leaky_means(x, (3.0,)).chunk(2, 2), leaky_means(other, (3.0,)).chunk(2, 2)
    torch.testing.assert_close(before[0][:, :20], after[0][:, :20])
    assert not torch.allclose(before[1][:, :20], after[1][:, :20])


def test_gradient_reaches_every_weight_and_a_silent_signal_is_finite():
    part = encoder().train()
    part(torch.randn(2, 2, 320)).square().mul(torch.randn(8)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in part.parameters())
    assert bool(part.bank.weight.grad.any())
    assert bool(part(torch.zeros(1, 2, 320)).isfinite().all())


def test_a_condition_changes_the_tokens():
    torch.manual_seed(0)
    part = FilterbankEncoder(2, 320, 3, dim=8, width=16, bands=4, kernel=32, memory_dim=4)
    torch.nn.init.normal_(part.film.scale_shift.weight)
    x = torch.randn(1, 2, 320)
    assert not torch.allclose(part(x, Condition(torch.ones(1, 3))), part(x, Condition(-torch.ones(1, 3))))


def test_what_cannot_be_is_refused():
    with pytest.raises(VqtoolError, match="hop"):
        encoder(hop=5)
    with pytest.raises(VqtoolError, match="memory"):
        encoder(memory=(3.0, 0.0))


def test_long_signals_are_taken_in_parts(monkeypatch):
    x = torch.randn(2, 40, 3)
    whole = leaky_means(x, (1.0, 2.5))
    monkeypatch.setattr(filterbank, "CHUNK", 7)
    torch.testing.assert_close(leaky_means(x, (1.0, 2.5)), whole)
