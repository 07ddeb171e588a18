"""Contrastive accuracy counts over a whole split, and never without its negatives."""

from __future__ import annotations

import pytest
import torch

from vqtool.api import DataSpec, Field
from vqtool.parts.metrics.contrastive import Contrastive

SPEC = DataSpec({"x": Field((1, 8), "signal")})


def test_figures_by_hand_and_over_uneven_batches():
    out = -torch.inf
    near = torch.tensor([[0.9, 0.1, out, 0.2], [0.5, 0.6, 0.1, out], [0.3, out, out, out]])
    right = torch.tensor([0, 0, 0])
    metric = Contrastive(SPEC)
    metric.update(similarities=near[:2], positive=right[:2])
    metric.update(similarities=near[2:], positive=right[2:])
    measured = metric.compute()
    assert measured["contrastive.accuracy"] == pytest.approx(2 / 3)
    assert measured["contrastive.effective_negatives"] == pytest.approx(4 / 3)
    assert measured["contrastive.chance"] == pytest.approx((1 / 3 + 1 / 3 + 1) / 3)
    assert measured["contrastive.lift"] == pytest.approx((2 / 3) / (5 / 9))


def test_guesses_have_a_lift_of_one():
    torch.manual_seed(0)
    metric = Contrastive(SPEC)
    metric.update(similarities=torch.rand(40_000, 20), positive=torch.randint(20, (40_000,)))
    assert metric.compute()["contrastive.lift"] == pytest.approx(1, abs=0.05)


def test_nothing_seen_gives_nothing():
    assert Contrastive(SPEC).compute() == {}
