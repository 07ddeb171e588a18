"""QAM against theory, against Sionna's LLRs, and its soft symbols against sums written out."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from vqtool_semcom.qam import Qam, bit_error_rate, expected_llr, sharpened

# Made with sionna-no-rt 2.2.0 (Mapper and Demapper("qam"), app and maxlog) from `bits` and `received`, on torch 2.13.
GOLDEN = json.loads((Path(__file__).parent / "sionna_llr.json").read_text())


ORDERS = (4, 16, 64, 256)


def noise_of(snr_db: float) -> torch.Tensor:
    return torch.tensor(10 ** (-snr_db / 10))


def sent(order: int, symbols: int, snr_db: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random bits [S * m] and their received symbols [S, 2]."""
    generator = torch.Generator().manual_seed(seed)
    qam = Qam(order)
    bits = torch.randint(0, 2, (symbols * qam.bits,), generator=generator).float()
    noise = torch.randn(symbols, 2, generator=generator) * (noise_of(snr_db) / 2).sqrt()
    return bits, qam.symbols(bits) + noise


@pytest.mark.parametrize("order", ORDERS)
def test_gray_labels_and_unit_energy(order: int) -> None:
    qam = Qam(order)
    bits = torch.tensor(list(itertools.product((0.0, 1.0), repeat=qam.bits)))
    points = qam.symbols(bits)[:, 0]
    assert float(points.square().sum(1).mean()) == pytest.approx(1, abs=1e-6)
    apart = (points[:, None] - points).norm(dim=-1)
    nearest = apart[apart > 1e-4].min()
    beside = (apart > 1e-4) & (apart < 1.01 * nearest)
    differ = (bits[:, None] != bits).sum(-1)
    assert set(differ[beside].tolist()) == {1}


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row['order']}-{row['snr_db']:g}dB")
def test_symbols_and_llrs_are_sionnas(row: dict) -> None:
    qam = Qam(row["order"])
    received = torch.tensor(row["received"])
    for how in ("exact", "max-log"):
        llr = qam.llr(received, noise_of(row["snr_db"]), how=how)
        torch.testing.assert_close(llr, torch.tensor(row[how]), atol=5e-5, rtol=2e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("snr_db", [6.0, 12.0])
def test_bit_errors_are_those_of_theory(order: int, snr_db: float) -> None:
    bits, received = sent(order, 250_000 // int(math.log2(order)), snr_db)
    theory = bit_error_rate(order, 10 ** (snr_db / 10))
    wrong = float(((Qam(order).llr(received, noise_of(snr_db), how="max-log") > 0) != (bits > 0.5)).float().mean())
    assert wrong == pytest.approx(theory, rel=0.03, abs=4 * math.sqrt(theory / len(bits)))


def test_theory_is_cho_and_yoons() -> None:
    """Values computed beforehand from the published sums, and the closed form for 4-QAM."""
    for snr_db, value in ((6, 0.14144), (12, 0.02813), (18, 0.00014)):
        assert bit_error_rate(16, 10 ** (snr_db / 10)) == pytest.approx(value, abs=6e-6)
    for snr_db, value in ((6, 0.24010), (12, 0.11458), (18, 0.02422)):
        assert bit_error_rate(64, 10 ** (snr_db / 10)) == pytest.approx(value, abs=6e-6)
    assert bit_error_rate(4, 10.0) == pytest.approx(0.5 * math.erfc(math.sqrt(5.0)))
    assert bit_error_rate(4, 10.0, fading=True) == pytest.approx(0.5 * (1 - math.sqrt(5 / 6)))


@pytest.mark.parametrize(("order", "snr_db", "exact", "largest"), [(16, 12, 11.18, 11.15), (64, 6, 1.99, 1.65)])
def test_the_llrs_size_is_as_predicted(order: int, snr_db: float, exact: float, largest: float) -> None:
    snr = 10 ** (snr_db / 10)
    _, received = sent(order, 20_000, snr_db)
    for how, value in (("exact", exact), ("max-log", largest)):
        size = float(Qam(order).llr(received, noise_of(snr_db), how=how).abs().mean())
        assert expected_llr(order, snr, how=how) == pytest.approx(size, rel=0.02)
        assert expected_llr(order, snr, how=how) == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize("order", [4, 16, 64])
def test_a_soft_symbol_is_the_mean_over_all_symbols(order: int) -> None:
    qam = Qam(order)
    p = torch.rand(qam.bits, generator=torch.Generator().manual_seed(order))
    bits = torch.tensor(list(itertools.product((0.0, 1.0), repeat=qam.bits)))
    weight = torch.where(bits > 0.5, p, 1 - p).prod(1)
    torch.testing.assert_close(qam.symbols(p)[0], weight @ qam.symbols(bits)[:, 0])


@pytest.mark.parametrize("temperature", [0.1, 0.413, 0.7, 1.0])
def test_the_distance_softmax_is_never_hard_and_loses_power(temperature: float) -> None:
    qam = Qam(16)
    bits = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)))
    certain = bits[5]
    weight = torch.softmax(-(certain - bits).square().sum(1) / temperature, 0)
    torch.testing.assert_close(qam.symbols(sharpened(certain, temperature))[0], weight @ qam.symbols(bits)[:, 0])
    r = math.tanh(1 / (2 * temperature))
    power = float(qam.symbols(sharpened(bits, temperature)).square().sum((1, 2)).mean())  # hard symbols have 1
    assert power == pytest.approx(r**2 * (4 + r**2) / 5)
    if temperature == 0.7:
        assert 10 * math.log10(power) == pytest.approx(-4.8, abs=0.05)


def test_a_known_gain_scales_the_points_and_not_the_noise() -> None:
    """LLRs of |y - h s|^2 written out over all symbols."""
    qam, generator = Qam(16), torch.Generator().manual_seed(1)
    bits = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)))
    points = qam.symbols(bits)[:, 0]
    received, gain, noise = torch.randn(5, 2, generator=generator), torch.rand(5, generator=generator), noise_of(3.0)
    metric = -(received[:, None] - gain[:, None, None] * points).square().sum(-1) / noise
    for bit in range(4):
        one = bits[:, bit] > 0.5
        expected = torch.logsumexp(metric[:, one], 1) - torch.logsumexp(metric[:, ~one], 1)
        torch.testing.assert_close(qam.llr(received, noise, gain).view(5, 4)[:, bit], expected)
