"""What SNR, labels, LLRs, fading and carriers mean, against Sionna: `sionna_channels.json` says how each was made."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vqtool_semcom.channels.awgn import Awgn
from vqtool_semcom.channels.ofdm import Ofdm
from vqtool_semcom.channels.rayleigh import Rayleigh
from vqtool_semcom.fading import times
from vqtool_semcom.qam import Qam

SIONNA = json.loads((Path(__file__).parent / "sionna_channels.json").read_text())


@pytest.mark.parametrize("row", SIONNA["noise"]["rows"], ids=str)
def test_a_noise_variance_is_that_of_es_over_n0(row: dict) -> None:
    """Sionna's `no` is N0 over both axes with Es = 1, so Es/N0 is Eb/N0 + 10 log10(m rate) dB."""
    snr_db = row["ebno_db"] + 10 * math.log10(math.log2(row["order"]) * row["coderate"])
    assert row["no"] == pytest.approx(10 ** (-snr_db / 10), rel=1e-5)


def test_the_noise_of_each_axis_is_half_of_it() -> None:
    no, axes = SIONNA["awgn"]["no"], SIONNA["awgn"]["axes"]
    assert axes == pytest.approx([no / 2, no / 2], rel=0.005)
    channel, bits = Awgn((16,), order=4).eval(), torch.zeros(1, 4)
    level, noise = torch.tensor([-10 * math.log10(no)]), torch.ones(1, 2, 2)
    got = channel.transmit(bits, level, (noise,), soft=False)
    moved = got.arrived["arrived"] - got.sent["symbols"]
    torch.testing.assert_close(moved.square(), torch.full((1, 2, 2), axes[0]), atol=0, rtol=0.005)


@pytest.mark.parametrize("how", ["exact", "max-log"])
@pytest.mark.parametrize("row", SIONNA["flat_fading"]["rows"], ids=lambda row: f"{row['order']}-QAM")
def test_faded_symbols_and_their_llrs_are_sionnas(row: dict, how: str) -> None:
    """From the received symbols and the gains; the noise that is left when the faded symbols are taken off is small."""
    bits, gain, received = (torch.tensor([row[name]]).float() for name in ("bits", "gain", "received"))
    n0 = 10 ** (-row["snr_db"] / 10)
    left = received - times(gain, Qam(row["order"]).symbols(bits))
    assert float(left.square().sum(-1).mean()) == pytest.approx(n0, rel=0.7)  # twelve symbols
    channel = Rayleigh((16,), order=row["order"], llr=how)
    arrived = {"symbols": received, "gain": gain, "snr_db": torch.tensor(row["snr_db"])}
    got = channel.llr_of(arrived, bits.shape[1])
    torch.testing.assert_close(got[0], torch.tensor(row[how]), atol=2e-3, rtol=1e-3)


def test_block_fading_has_sionnas_moments() -> None:
    """E|h|^2 = 1 and E|h|^4 = 2, constant over a block."""
    reference = SIONNA["rayleigh_block"]
    torch.manual_seed(0)
    (gain,) = Rayleigh((16,), block=0).draw_gains(50_000, 4, torch.device("cpu"))
    energy = gain[:, 0].square().sum(-1)
    assert reference["constant"]
    assert bool((gain == gain[:, :1]).all())
    assert float(energy.mean()) == pytest.approx(reference["power"], rel=0.02)
    assert float(energy.square().mean()) == pytest.approx(reference["fourth"], rel=0.04)


def test_gains_of_carriers_are_sionnas() -> None:
    taps = torch.tensor(SIONNA["ofdm"]["taps"])[None]
    got: Tensor = Ofdm((16,)).on_carriers(taps)[0]
    torch.testing.assert_close(got.roll(32, 0), torch.tensor(SIONNA["ofdm"]["gains"]), atol=1e-4, rtol=1e-4)
