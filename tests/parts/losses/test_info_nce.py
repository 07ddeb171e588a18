"""The contrastive loss against a sum written out."""

from __future__ import annotations

import math

import pytest
import torch

from vqtool.api import DataSpec, Field
from vqtool.parts.losses.info_nce import InfoNCE

SPEC = DataSpec({"x": Field((1, 8), "signal")})


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_it_is_the_mean_negative_log_share_of_the_right_candidate(temperature):
    torch.manual_seed(0)
    near = 2 * torch.rand(7, 5, dtype=torch.double) - 1
    near[0, 3] = near[4, 0] = near[4, 1] = -torch.inf
    right = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    expected = 0.0
    for row, at in zip(near.tolist(), right.tolist(), strict=True):
        powers = [math.exp(s / temperature) if s > -2 else 0.0 for s in row]
        expected -= math.log(powers[at] / sum(powers)) / 7
    loss = InfoNCE(SPEC, temperature=temperature)(similarities=near, positive=right)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_candidates_that_are_none_pass_no_gradient():
    near = torch.zeros(2, 3)
    near[0, 1] = -torch.inf
    near.requires_grad_()
    InfoNCE(SPEC)(similarities=near, positive=torch.tensor([0, 2])).backward()
    assert bool(near.grad.isfinite().all())
    assert near.grad[0, 1] == 0
    assert near.grad[0, 2] != 0


def test_without_a_wrong_candidate_it_is_zero_and_teaches_nothing():
    near = torch.full((2, 3), -torch.inf)
    near[:, 0] = 0.3
    near.requires_grad_()
    loss = InfoNCE(SPEC)(similarities=near, positive=torch.tensor([0, 0]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not bool(near.grad.any())


def test_no_hidden_token_at_all():
    assert float(InfoNCE(SPEC)(similarities=torch.zeros(0, 3), positive=torch.zeros(0, dtype=torch.long))) == 0
