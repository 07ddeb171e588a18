"""Token accuracy and cross-entropy against hand-made answers."""

from __future__ import annotations

import math

import pytest
import torch

from vqtool.api import DataSpec, Field
from vqtool.parts.metrics.token_accuracy import TokenAccuracy

SPEC = DataSpec({"x": Field((1, 8), "signal")})


def logits_for(codes: torch.Tensor, sure: float, size: int = 4) -> torch.Tensor:
    """Logits that give each of `codes` the probability `sure`, and the rest evenly."""
    p = torch.full((*codes.shape, size), (1 - sure) / (size - 1))
    return p.scatter(-1, codes[..., None], sure).log()


def test_accuracies_and_cross_entropy():
    codes = torch.tensor([[[0], [1], [2], [3]]])
    result = torch.tensor([[[0], [1], [2], [0]]])
    free = torch.tensor([[[0], [1], [0], [0]]])
    metric = TokenAccuracy(SPEC)
    metric.update(codes=codes, logits=logits_for(result, 0.7), codes_free=free)
    found = metric.compute()
    assert found["token_accuracy.forced"] == 0.75
    assert found["token_accuracy.free"] == 0.5
    assert found["cross_entropy"] == pytest.approx(-(3 * math.log(0.7) + math.log(0.1)) / 4)


def test_masked_codes_and_codes_beyond_a_small_codebook_are_left_out():
    codes = torch.tensor([[[0, 1], [-1, -1]]])
    logits = logits_for(codes.clamp_min(0), 0.7)
    logits[:, :, 0, 2:] = -math.inf  # the first codebook has two codes
    metric = TokenAccuracy(SPEC)
    metric.update(codes=codes, logits=logits)
    found = metric.compute()
    assert found["token_accuracy.forced"] == 1
    assert "token_accuracy.free" not in found
    assert found["cross_entropy"] == pytest.approx((-math.log(0.7 / 0.8) - math.log(0.7)) / 2)


def test_batches_are_weighted_by_their_tokens():
    metric = TokenAccuracy(SPEC)
    for n, right in ((1, True), (3, False)):
        codes = torch.zeros(n, 2, 1, dtype=torch.long)
        metric.update(codes=codes, logits=logits_for(codes if right else codes + 1, 0.9))
    assert metric.compute()["token_accuracy.forced"] == 0.25
    assert TokenAccuracy(SPEC).compute() == {}
