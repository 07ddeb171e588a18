"""Spectral losses: a sine's height, filters that add up, gradients that point the right way."""

from __future__ import annotations

import pytest
import torch

from vqtool.api import DataSpec, Field
from vqtool.errors import VqtoolError
from vqtool_speech.losses.mel import Mel
from vqtool_speech.losses.stft import Stft
from vqtool_speech.spectra import magnitudes, mel_filters

SPEC = DataSpec({"x": Field((1, 4096), "signal")}, sample_rate=16_000.0)


@pytest.mark.parametrize("window", [128, 512, 2048])
def test_a_sine_of_amplitude_a_peaks_at_half_of_it(window: int) -> None:
    x = 0.6 * torch.sin(2 * torch.pi * 1000 / 16_000 * torch.arange(16_000))  # a whole number of bins
    spectrum = magnitudes(x, window)
    assert float(spectrum[:, 20].max()) == pytest.approx(0.3, rel=1e-3)
    assert int(spectrum[:, 20].argmax()) == window * 1000 // 16_000


def test_mel_filters_are_means_over_their_bins_from_low_to_high() -> None:
    for bins, bands in ((1025, 64), (65, 64)):
        filters = mel_filters(bins, 16_000, bands)
        torch.testing.assert_close(filters.sum(1), torch.ones(bands))
        centres = filters @ torch.arange(bins, dtype=torch.float32)
        assert bool((centres.diff() >= 0).all())
        assert bool((filters >= 0).all())


@pytest.mark.parametrize("loss", [Stft(SPEC), Mel(SPEC)], ids=["stft", "mel"])
def test_losses_vanish_at_the_target_and_pull_towards_it(loss: Stft | Mel) -> None:
    torch.manual_seed(0)
    target = torch.randn(2, 1, 4096)
    assert float(loss(x_hat=target, target=target)) == 0
    x_hat = (0.5 * target).requires_grad_()
    value = loss(x_hat=x_hat, target=target)
    (gradient,) = torch.autograd.grad(value, x_hat)
    assert float((gradient * target).sum()) < 0  # louder is better here
    with torch.no_grad():
        assert float(loss(x_hat=x_hat - 1e-3 * gradient / gradient.norm(), target=target)) < float(value)
        assert float(loss(x_hat=0.9 * target, target=target)) < float(value)


def test_silence_gives_finite_losses() -> None:
    silent = torch.zeros(1, 1, 4096)
    x_hat = (1e-3 * torch.randn(1, 1, 4096)).requires_grad_()
    for loss in (Stft(SPEC), Mel(SPEC)):
        value = loss(x_hat=x_hat, target=silent)
        (gradient,) = torch.autograd.grad(value, x_hat)
        assert bool(value.isfinite())
        assert bool(gradient.isfinite().all())


def test_mel_needs_a_rate() -> None:
    with pytest.raises(VqtoolError, match="sample rate"):
        Mel(DataSpec({"x": Field((1, 4096), "signal")}))
