"""Draws that are a function of what is quantized."""

from __future__ import annotations

import torch

from vqtool.quantizers.core.draw import row_keys, uniform
from vqtool.quantizers.residual import ResidualEMA


def test_uniform_and_different_for_each_window():
    keys = row_keys(torch.randn(4000, 3, 5), None, torch.ones(8))
    draws = uniform(keys, 0)
    assert float(draws.min()) >= 0
    assert float(draws.max()) < 1
    expected = (torch.arange(4000).double() + 0.5) / 4000
    assert float((draws.sort().values - expected).abs().max()) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([draws, uniform(keys, 1)]))[0, 1])) < 0.06


def test_changes_with_the_codebook_and_not_with_padding():
    z = torch.randn(6, 4, 5)
    valid = torch.ones(6, 4, dtype=torch.bool)
    valid[:, 2:] = False
    keys = row_keys(z, valid, torch.ones(8))
    z[:, 2:] = 99.0
    assert torch.equal(keys, row_keys(z, valid, torch.ones(8)))
    assert not bool((keys == row_keys(z, valid, torch.full((8,), 1.5))).any())


def test_level_dropout_keeps_a_prefix_of_levels_evenly():
    quantizer = ResidualEMA(4, codebook_size=8, levels=4, level_dropout=1.0)
    z = torch.randn(600, 2, 4)
    quantizer.initialise(z)
    q = quantizer(z)
    present = q.codes[:, 0] >= 0
    kept = present.sum(1)
    assert torch.equal(present, torch.arange(4) < kept[:, None])
    assert all(100 < int((kept == n).sum()) < 200 for n in (1, 2, 3, 4))
    assert [int(s.counts.sum()) for s in q.stats] == (2 * present.sum(0)).tolist()
    assert bool((quantizer.eval()(z).codes >= 0).all())
