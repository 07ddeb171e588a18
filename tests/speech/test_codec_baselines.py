"""The plain rivals: k-means codebooks on blocks, and the mu law."""

from __future__ import annotations

import math

import pytest
import torch

from tests.speech.sounds import voice
from vqtool.api import DataSpec, Field, TensorRows
from vqtool.catalog import catalog
from vqtool_speech.baselines.block_rvq import BlockRvq
from vqtool_speech.baselines.mu_law import MuLaw

SPEC = DataSpec({"x": Field((1, 1600), "signal")}, sample_rate=16_000.0)


def rows(seed: int, count: int = 30) -> TensorRows:
    waves = [torch.from_numpy(voice(1.0, 16_000, seed=seed + k)[4000:5600]) for k in range(count)]
    return TensorRows({"x": torch.stack(waves)[:, None]})


def snr(x: torch.Tensor, y: torch.Tensor) -> float:
    return 10 * math.log10(float(x.square().sum() / (x - y).square().sum()))


def test_more_levels_are_closer_and_any_length_will_do() -> None:
    train, test = rows(0), rows(100, 4).columns["x"][..., :1550]
    figures = []
    for levels in (1, 3):
        baseline = BlockRvq(SPEC, block=16, levels=levels, codes=32, rounds=3)
        baseline.fit(train)
        x_hat = baseline.predict({"x": test})["x_hat"]
        assert x_hat.shape == test.shape
        figures.append(snr(test, x_hat))
    assert figures[1] > figures[0] + 2 > 2


def test_mu_law_has_its_known_ratio_and_is_odd() -> None:
    t = torch.arange(16_000) / 16_000
    tone = 0.9 * torch.sin(2 * torch.pi * 997 * t)[None, None]
    for bits, low, high in ((8, 36, 39), (6, 24, 27), (4, 12, 16)):
        coder = MuLaw(SPEC, bits=bits)
        y = coder.predict({"x": tone})["x_hat"]
        assert low < snr(tone, y) < high
        torch.testing.assert_close(coder.predict({"x": -tone})["x_hat"][tone != 0], -y[tone != 0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("role", ["data", "loss", "metric", "baseline"])
def test_the_package_is_found(role: str) -> None:
    mine = {c.name for c in catalog().components if c.role == role and c.target.startswith("vqtool_speech")}
    wanted = {"data": {"wav"}, "loss": {"stft", "mel"},
              "metric": {"si-sdr", "spectral-distance", "bitrate", "pesq", "stoi"},
              "baseline": {"block-rvq", "mu-law", "opus", "speex", "lc3", "codec2"}}  # fmt: skip
    assert mine == wanted[role]
