"""SNR and SI-SDR: what a gain, a sign, a delay and an offset do to each of them."""

from __future__ import annotations

import math

import pytest
import torch

from vqtool.api import DataSpec, Field
from vqtool_speech.metrics.si_sdr import SiSdr
from vqtool_speech.metrics.spectral_distance import SpectralDistance

SPEC = DataSpec({"x": Field((1, 4000), "signal")}, sample_rate=16_000.0)


def noise(rows: int = 2, length: int = 4000, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 1, length, generator=torch.Generator().manual_seed(seed))


def figures(x: torch.Tensor, y: torch.Tensor, **named: torch.Tensor) -> dict[str, float]:
    metric = SiSdr(SPEC)
    metric.update(x=x, x_hat=y, **named)
    return dict(metric.compute())


def test_known_noise_gives_its_ratio() -> None:
    x, n = noise(), noise(seed=1)
    n = n - (n * x).sum(-1, keepdim=True) / x.square().sum(-1, keepdim=True) * x  # orthogonal
    n = n * (x.norm(dim=-1, keepdim=True) / n.norm(dim=-1, keepdim=True)) * 10 ** (-15 / 20)
    measured = figures(x, x + n)
    assert measured["snr.db"] == pytest.approx(15, abs=1e-3)
    assert measured["si_sdr.db"] == pytest.approx(15, abs=1e-3)  # larger is better: not the negative of a loss
    assert measured["range_ratio"] == pytest.approx(math.sqrt(1 + 10**-1.5), abs=1e-2)


def test_gain_and_sign_are_noise_to_snr_only_and_the_sign_is_told() -> None:
    x = noise()
    y = x + 0.1 * noise(seed=1)
    plain, turned, half = figures(x, y), figures(x, -y), figures(x, 0.5 * y)
    assert turned["si_sdr.db"] == pytest.approx(plain["si_sdr.db"])
    assert half["si_sdr.db"] == pytest.approx(plain["si_sdr.db"])
    assert (plain["si_sdr.flipped"], turned["si_sdr.flipped"]) == (0, 1)
    assert turned["snr.db"] < -5
    assert half["snr.db"] == pytest.approx(6, abs=0.2)
    assert half["range_ratio"] == pytest.approx(0.5 * plain["range_ratio"])


@pytest.mark.parametrize("shift", [1, -1, 7, 30])
def test_a_delay_does_not_read_as_noise_but_is_told(shift: int) -> None:
    x = torch.nn.functional.pad(noise(length=3900), (50, 50))
    y = (x + 0.01 * noise(seed=1)).roll(shift, -1)
    measured = figures(x, y)
    assert measured["si_sdr.db"] == pytest.approx(40, abs=0.5)
    assert measured["si_sdr.shift"] == abs(shift)
    assert measured["snr.db"] < 0
    assert figures(x, x)["si_sdr.shift"] == 0


def test_rows_of_a_clip_are_taken_together_and_only_their_real_samples() -> None:
    x, y = noise(3), noise(3) + 0.3 * noise(3, seed=1)
    whole = figures(x[:2].reshape(1, 1, -1), y[:2].reshape(1, 1, -1))
    garbage = y.clone()
    garbage[..., 3000:] = 99.0
    parts = figures(x[:2], y[:2], clip=torch.tensor([4, 4]))
    assert parts["snr.db"] == pytest.approx(whole["snr.db"])
    cut = figures(x, garbage, samples=torch.tensor([3000, 3000, 3000]))
    assert cut == pytest.approx(figures(x[..., :3000], y[..., :3000]))


def test_dc_and_silence() -> None:
    x = noise()
    assert figures(x, x + 0.5)["dc"] == pytest.approx(0.5, abs=0.02)
    measured = figures(torch.cat([x, torch.zeros(1, 1, 4000)]), torch.cat([x, noise(1)]))
    assert measured["snr.silent"] == 1
    assert measured["snr.db"] == pytest.approx(120, abs=1)
    assert figures(x, torch.zeros_like(x))["si_sdr.db"] < -50


def test_spectral_distances_vanish_for_the_same_and_see_a_lost_band() -> None:
    x = noise(2)
    low = torch.fft.irfft(torch.fft.rfft(x) * (torch.arange(2001) < 1000), n=4000)
    results = {}
    for name, y in (("same", x), ("turned", -x), ("low", low)):
        metric = SpectralDistance(SPEC)
        metric.update(x=x, x_hat=y, samples=torch.tensor([4000, 3500]))
        results[name] = metric.compute()
    assert results["same"] == {"stft.distance": 0, "mel.distance": 0}
    assert results["turned"]["mel.distance"] == pytest.approx(0, abs=1e-6)  # phase is not heard
    assert results["low"]["mel.distance"] > 0.3
    assert results["low"]["stft.distance"] > 1
