"""The moving average against a float64 reference of the inputs, and what revival does to it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqtool.api import CodebookStats
from vqtool.api.quantizer import SAMPLES, sample
from vqtool.quantizers.core.averages import revive
from vqtool.quantizers.core.codebook import Codebook


def book(size=16, dim=4, decay=0.9, revive_below=0.0, seed=0):
    codebook = Codebook(size, dim, decay=decay, revive_below=revive_below)
    codebook.set(torch.randn(size, dim, generator=torch.Generator().manual_seed(seed)))
    return codebook


@given(decay=st.sampled_from([0.0, 0.5, 0.9, 0.999]), seed=st.integers(0, 99), offset=st.sampled_from([0.0, 100.0]))
def test_ten_steps_equal_the_float64_reference(decay, seed, offset):
    codebook = book(decay=decay, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    counts = sums = None
    codes = codebook.codes.double().clone()
    for _ in range(10):
        x = torch.randn(300, 4, generator=generator) + offset
        codes_found = codebook.search(x)
        onehot = torch.nn.functional.one_hot(codes_found, 16).double()
        n, s = onehot.sum(0), onehot.t() @ x.double()
        if counts is None:  # every code begins with the weight of uniform use of the first batch
            counts = torch.full((16,), n.sum() / 16, dtype=torch.float64)
            sums = counts[:, None] * codes
        counts, sums = decay * counts + (1 - decay) * n, decay * sums + (1 - decay) * s
        codes = torch.where((n > 0)[:, None], sums / counts.clamp_min(1e-300)[:, None], codes)
        sums = torch.where((n > 0)[:, None], sums, counts[:, None] * codes)
        codebook.update(codebook.stats(x, codes_found, None))
    assert torch.allclose(codebook.codes.double(), codes, rtol=1e-5, atol=1e-5)
    assert torch.allclose(codebook.weights.double(), counts, rtol=1e-5, atol=1e-6)


def test_long_disuse_makes_no_slow_numbers_and_moves_nothing():
    codebook = book(decay=0.5)
    x = codebook.codes[:1].repeat(8, 1)
    stats = codebook.stats(x, codebook.search(x), None)
    before = codebook.codes.clone()
    for _ in range(400):
        codebook.update(stats)
    assert torch.equal(codebook.codes[1:], before[1:])
    assert float(codebook.weights[1:].max()) == 0.0
    assert bool(codebook.codes.isfinite().all())


def test_counts_stay_exact_and_in_float32_under_autocast():
    codebook = book(size=2)
    x = torch.zeros(5000, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stats = codebook.stats(x, codebook.search(x), None)
    assert stats.counts.dtype == torch.float32
    assert float(stats.counts.sum()) == 5000


def test_the_sample_of_a_union_is_the_sample_of_samples():
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    whole = sample(x, 512)
    parts = torch.cat([sample(part, 512) for part in x.split([100, 1500, 1, 399])])
    assert whole.shape == (SAMPLES, 3)
    assert torch.equal(sample(parts, 512), whole)
    assert torch.equal(sample(x[torch.randperm(2000)], 512), whole)


def test_samples_leave_out_what_is_not_valid():
    x = torch.randn(10, 3)
    x[4] = torch.nan
    valid = torch.ones(10, dtype=torch.bool)
    valid[4] = valid[7] = False
    taken = sample(x, 64, valid)
    assert int(taken.isfinite().all(1).sum()) == 8
    assert not any(torch.equal(row, x[7]) for row in taken)


def test_adding_statistics_is_commutative():
    x = torch.randn(90, 4)
    codebook = book(size=64)
    a, b = (codebook.stats(part, codebook.search(part), None) for part in x.split([20, 70]))
    assert torch.equal((a + b).samples, (b + a).samples)
    assert isinstance(a + b, CodebookStats)


@pytest.mark.parametrize("factor", [1, 1000])
def test_revival_is_relative_to_uniform_use(factor):
    codes, weights = torch.zeros(4, 2), torch.tensor([1.0, 1.0, 0.5, 0.01]) * factor
    revived = revive(codes, weights, torch.tensor([[torch.nan, 0.0], [7.0, 7.0]]), 0.1)
    assert revived.tolist() == [False, False, False, True]
    assert codes[3].tolist() == [7.0, 7.0]
    assert float(weights[3]) == pytest.approx(2.51 * factor / 4)


def test_revival_can_be_turned_off_and_needs_samples():
    weights = torch.tensor([1.0, 0.0])
    for samples, below in ((torch.ones(3, 2), 0.0), (torch.full((3, 2), torch.nan), 0.1), (torch.ones(0, 2), 0.1)):
        codes = torch.zeros(2, 2)
        assert not bool(revive(codes, weights.clone(), samples, below).any())
        assert not bool(codes.any())
