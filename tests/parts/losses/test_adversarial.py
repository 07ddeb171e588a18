"""The hinge of both players and feature matching, against numbers by hand."""

from __future__ import annotations

import pytest
import torch

from vqtool.api import Adversarial, DataSpec, Field
from vqtool.parts.losses.feature_matching import FeatureMatching
from vqtool.parts.losses.hinge import Hinge

SPEC = DataSpec({"x": Field((1, 8), "signal")})


def test_the_hinge_ends_where_the_discriminator_is_convinced():
    scales = [torch.tensor([0.5, 3.0]), torch.tensor([-1.0])]
    assert float(Hinge(SPEC)(fake_logits=scales)) == pytest.approx((0.25 + 2) / 2)


def test_the_discriminators_side_is_zero_beyond_the_margin():
    loss = Hinge(SPEC)
    assert isinstance(loss, Adversarial)
    real, fake = [torch.tensor([2.0, 0.0])], [torch.tensor([-2.0, 1.0])]
    assert float(loss.discriminate(real_logits=real, fake_logits=fake)) == pytest.approx(0.5 + 1)
    assert float(loss.discriminate(real_logits=[torch.ones(2)], fake_logits=[-torch.ones(2)])) == 0


def test_features_are_compared_relative_to_the_targets_own_size():
    assert not isinstance(FeatureMatching(SPEC), Adversarial)
    real, fake = torch.tensor([1.0, -3.0]), torch.tensor([2.0, -3.0])
    for size in (1.0, 100.0):
        value = FeatureMatching(SPEC)(fake_features=[[size * fake, real]], real_features=[[size * real, real]])
        assert float(value) == pytest.approx(0.25 / 2)
