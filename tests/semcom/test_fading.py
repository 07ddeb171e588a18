"""Fading channels: error rates of theory, blocks, estimates by pilots, no knowledge, and OFDM in the time domain."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.semcom.test_channels import quantized
from vqtool.errors import VqtoolError
from vqtool.recipe import options_of
from vqtool_semcom.channels.awgn import Awgn
from vqtool_semcom.channels.ofdm import Ofdm
from vqtool_semcom.channels.rayleigh import Rayleigh
from vqtool_semcom.fading import blind_error_rate, fading_error_rate, rotated, times
from vqtool_semcom.qam import bit_error_rate


def as_complex(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs.contiguous())


@pytest.mark.parametrize("order", [4, 16, 64, 256])
@pytest.mark.parametrize("db", [0.0, 7.0, 15.0, 30.0])
def test_a_known_gain_errs_as_cho_and_yoon_say(order: int, db: float) -> None:
    snr = 10 ** (db / 10)
    assert fading_error_rate(order, snr) == pytest.approx(bit_error_rate(order, snr, fading=True), rel=1e-6)


@pytest.mark.parametrize("error", [0.1, 1.0, 3.0])
def test_an_estimated_gain_errs_as_proakis_says_of_four_phases(error: float) -> None:
    """(1 - r / sqrt(2 - r^2)) / 2, r the correlation of y and the estimate."""
    for db in (0.0, 10.0, 20.0):
        n0 = 10 ** (-db / 10)
        r = 1 / math.sqrt((1 + n0) * (1 + error * n0))
        assert fading_error_rate(4, 1 / n0, error) == pytest.approx((1 - r / math.sqrt(2 - r * r)) / 2, rel=1e-6)


def test_products_of_pairs_are_complex_ones() -> None:
    a, b = torch.randn(2, 7, 3, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(as_complex(times(a, b)), as_complex(a) * as_complex(b))
    turned, size = rotated(a, b)
    torch.testing.assert_close(as_complex(turned), as_complex(a) * as_complex(b).conj() / as_complex(b).abs())
    torch.testing.assert_close(size, as_complex(b).abs())


KINDS = [
    (Rayleigh, {"block": 8}),
    (Rayleigh, {"block": 0}),
    (Rayleigh, {"csi": "pilots"}),
    (Rayleigh, {"csi": "pilots", "block": 8, "pilots": 4}),
    (Rayleigh, {"csi": "none"}),
    (Ofdm, {}),
    (Ofdm, {"csi": "known"}),
    (Ofdm, {"pilots": 8, "prefix": 3, "taps": 3}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("order", [4, 16, 64])
def test_every_channel_errs_as_theory_says(kind: type, options: dict, order: int) -> None:
    torch.manual_seed(0)
    rows = 8000 if options.get("block") == 0 else 4000 if kind is Ofdm else 1500
    sent, tables, _ = quantized(256, 16, rows=rows)
    channel = kind((256,), llr="max-log", order=order, labels="identity", **options).eval()
    for level in (3.0, 15.0):
        figures = channel(sent, tables, level=level).figures
        assert float(figures["ber"].mean()) == pytest.approx(float(figures["ber.theory"][0]), rel=0.06)
        if channel.csi == "known":
            assert float(figures["llr.ratio"].mean()) == pytest.approx(1, abs=0.05)
        else:
            assert "llr.ratio" not in figures


def test_what_is_known_of_the_gain_is_worth_something() -> None:
    def errors(**options: object) -> float:
        torch.manual_seed(0)
        sent, tables, _ = quantized(256, 16, rows=500)
        return float(Rayleigh((256,), **options).eval()(sent, tables, level=9.0).figures["ber"].mean())

    known, few, many, none = errors(), errors(csi="pilots"), errors(csi="pilots", pilots=8), errors(csi="none")
    assert known < many < few < none < 0.5
    assert blind_error_rate(4, 10.0) == pytest.approx(0.5)  # all points have one energy


def test_a_block_shares_its_gain() -> None:
    sent, tables, _ = quantized(256, 16)
    for block, different in ((1, 32), (5, 7), (8, 4), (0, 1), (100, 1)):
        received = Rayleigh((256,), block=block).eval()(sent, tables, level=10.0)
        gain = received.trace["gain"]
        assert gain.shape == (6, 32, 2)
        assert len(gain[0].unique(dim=0)) == different
        assert torch.equal(gain[0, 0], gain[0, min(block or 32, 32) - 1])


def test_pilots_are_counted() -> None:
    bits = 128  # 32 symbols
    assert Rayleigh((256,)).symbols_of(bits) == 32
    assert Rayleigh((256,), block=8, csi="pilots", pilots=2).symbols_of(bits) == 40
    assert Rayleigh((256,), block=0, csi="pilots", pilots=3).symbols_of(bits) == 35
    assert Ofdm((256,)).symbols_of(bits) == 48
    assert Ofdm((256,), order=4).symbols_of(bits) == 64 + 2 * 16  # 48 carriers of data: two OFDM symbols


def test_ofdm_is_what_a_prefix_and_a_convolution_give() -> None:
    """In the time domain: transform, prefix, convolution with the taps, prefix off, transform back: H x."""
    channel = Ofdm((256,), prefix=5, taps=6)
    g = torch.Generator().manual_seed(0)
    taps = torch.randn(1, 6, 2, generator=g)
    x = as_complex(torch.randn(2, 64, 2, generator=g))  # two OFDM symbols in a row
    waves = torch.fft.ifft(x)
    stream = torch.cat([waves[:, -5:], waves], 1).flatten()
    out = torch.zeros(len(stream) + 5, dtype=stream.dtype)
    for delay, tap in enumerate(as_complex(taps[0])):
        out[delay : delay + len(stream)] += tap * stream
    arrived = torch.fft.fft(out[: len(stream)].view(2, -1)[:, 5:])
    gain = as_complex(channel.on_carriers(taps))[0]
    torch.testing.assert_close(arrived, gain * x, atol=1e-4, rtol=1e-4)


def test_the_estimate_of_ofdm_is_that_of_least_squares() -> None:
    """Its error has the variance N0 (taps fitted) / (pilots); carriers fade as one channel of unit power."""
    torch.manual_seed(0)
    channel = Ofdm((256,), pilots=16, prefix=7, taps=3)
    gain, error = channel.draw_gains(20000, 48, torch.device("cpu"))
    assert channel.estimate_error == 0.5
    assert float(error.square().sum(-1).mean()) == pytest.approx(0.5, rel=0.02)
    power = gain.square().sum(-1).mean(0)
    torch.testing.assert_close(power, torch.ones(48), atol=0.03, rtol=0)
    near = (as_complex(gain)[:, 0] * as_complex(gain)[:, 1].conj()).mean().abs()  # neighbours fade alike
    assert 0.9 < float(near) < 1.05
    assert torch.equal(channel.data % 4 != 0, torch.ones(48, dtype=torch.bool))


@pytest.mark.parametrize(("options", "message"), [
    ({"taps": 20}, "reach beyond a prefix"),
    ({"pilots": 7}, "cannot show"),
    ({"pilots": 64}, "cannot show"),
    ({"pilots": 2}, "cannot show"),
])  # fmt: skip
def test_what_ofdm_cannot_do(options: dict, message: str) -> None:
    with pytest.raises(VqtoolError, match=message):
        Ofdm((256,), **options)


def test_options_of_the_base_are_announced_once() -> None:
    base, more = options_of(Awgn).names, options_of(Rayleigh).names
    assert more == ["block", "csi", "pilots", *base]
    assert {option.name for option in options_of(Ofdm).documented()} > set(base)
