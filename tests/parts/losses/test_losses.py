"""The plain losses: values by hand, masks, and gradients that stay finite."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from vqtool.api import DataSpec
from vqtool.api.loss import reads
from vqtool.parts.losses.cross_entropy import CrossEntropy
from vqtool.parts.losses.l1 import L1
from vqtool.parts.losses.mse import Mse
from vqtool.parts.losses.next_code import NextCode

SPEC = DataSpec({})


def test_mse_and_l1():
    x_hat, target = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[0.0, 5.0]]])
    assert Mse(SPEC)(x_hat=x_hat, target=target).item() == 5.0
    assert L1(SPEC)(x_hat=x_hat, target=target).item() == 2.0


def test_they_name_what_they_read():
    assert reads(Mse.forward)[0] == reads(L1.forward)[0] == {"x_hat", "target"}
    assert reads(NextCode.forward)[0] == {"logits", "codes"}
    assert reads(CrossEntropy.forward)[0] == {"logits", "label"}


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_next_code_is_cross_entropy(smoothing):
    logits, codes = torch.randn(5, 4, 2, 7), torch.randint(7, (5, 4, 2))
    expected = F.cross_entropy(logits.flatten(0, 2), codes.flatten(), label_smoothing=smoothing)
    torch.testing.assert_close(NextCode(SPEC, smoothing=smoothing)(logits=logits, codes=codes), expected)


def test_masked_codes_do_not_count():
    logits, codes = torch.randn(5, 4, 2, 7), torch.randint(7, (5, 4, 2))
    kept = codes.clone()
    kept[3:] = -1
    torch.testing.assert_close(
        NextCode(SPEC)(logits=logits, codes=kept), NextCode(SPEC)(logits=logits[:3], codes=codes[:3])
    )
    assert NextCode(SPEC)(logits=logits, codes=torch.full_like(codes, -1)).item() == 0.0


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_impossible_codes_leave_value_and_gradient_finite(smoothing):
    logits, codes = torch.randn(5, 4, 2, 7), torch.randint(3, (5, 4, 2))
    shorter = F.cross_entropy(logits[:, :, 1, :3].flatten(0, 1), codes[:, :, 1].flatten(), label_smoothing=smoothing)
    whole = F.cross_entropy(logits[:, :, 0].flatten(0, 1), codes[:, :, 0].flatten(), label_smoothing=smoothing)
    logits[:, :, 1, 3:] = -math.inf
    logits.requires_grad_()
    loss = NextCode(SPEC, smoothing=smoothing)(logits=logits, codes=codes)
    torch.testing.assert_close(loss, (shorter + whole) / 2)
    loss.backward()
    assert bool(logits.grad.isfinite().all())


def test_cross_entropy_ignores_unknown_labels():
    logits, label = torch.randn(6, 3), torch.tensor([0, 1, 2, -1, -1, 0])
    known = label >= 0
    expected = F.cross_entropy(logits[known], label[known])
    torch.testing.assert_close(CrossEntropy(SPEC)(logits=logits, label=label), expected)
    assert CrossEntropy(SPEC)(logits=logits, label=torch.full_like(label, -1)).item() == 0.0
