"""Hard and soft perplexity: their values, their names, and that only the hard one sees a collapse."""

from __future__ import annotations

import pytest
import torch

from vqtool.api import DataSpec, Field
from vqtool.parts.metrics.perplexity import Perplexity

SPEC = DataSpec({"x": Field((1, 8), "signal")})


def test_uneven_batches_count_by_token():
    metric = Perplexity(SPEC)
    first, second = torch.zeros(1, 3, 2, dtype=torch.long), torch.ones(1, 1, 2, dtype=torch.long)
    usage = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    metric.update(codes=first, codebook_sizes=(4, 4), usage=usage)
    metric.update(codes=second, codebook_sizes=(4, 4), usage=usage.roll(1, 1))
    measured = metric.compute()
    two = torch.special.entr(torch.tensor([0.75, 0.25])).sum().exp()
    assert measured["perplexity.hard.group0"] == measured["perplexity.hard.group1"] == pytest.approx(float(two))
    assert measured["perplexity.soft.group0"] == pytest.approx(float(two))
    assert measured["perplexity.soft.group1"] == pytest.approx(4)
    assert measured["perplexity.soft.sum"] == pytest.approx(4 + float(two))
    assert measured["perplexity.soft.mean"] == pytest.approx((4 + float(two)) / 2)
    assert measured["perplexity.tokens"] == 4


def test_only_the_hard_one_sees_a_collapse():
    metric = Perplexity(SPEC)
    codes = torch.zeros(2, 50, 1, dtype=torch.long)
    metric.update(codes=codes, codebook_sizes=(320,), usage=torch.full((1, 320), 1 / 320), codebook_names=("codebook",))
    measured = metric.compute()
    assert measured["perplexity.hard.codebook"] == pytest.approx(1)
    assert measured["perplexity.soft.codebook"] == pytest.approx(320)


def test_masked_codes_do_not_count():
    metric = Perplexity(SPEC)
    codes = torch.tensor([[[0], [1], [-1]]])
    metric.update(codes=codes, codebook_sizes=(2,), usage=torch.tensor([[0.5, 0.5]]))
    assert metric.compute()["perplexity.tokens"] == 2
