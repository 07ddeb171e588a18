"""Entropies by hand, and slopes that stay finite where a probability underflows."""

from __future__ import annotations

import math

import torch

from vqtool.quantizers.core.entropy import confidence_and_diversity, entropy


def test_they_are_the_entropies_by_hand() -> None:
    torch.testing.assert_close(entropy(torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])),
                               torch.tensor([math.log(2), 0.0]))  # fmt: skip
    confidence, diversity = confidence_and_diversity(torch.eye(4)[:, None], None)
    assert float(confidence) == 0
    assert abs(float(diversity)) < 1e-6


def test_a_probability_that_underflows_passes_no_nan_back() -> None:
    """Sharp mixtures, as at the end of an annealed temperature, hold exact zeros."""
    logits = torch.tensor([[0.0, 300.0, -300.0], [0.0, 200.0, -300.0]], requires_grad=True)
    probs = torch.softmax(logits, 1)
    assert bool((probs == 0).any())
    confidence, diversity = confidence_and_diversity(probs[:, None], None)
    (confidence + diversity).backward()
    assert bool(logits.grad.isfinite().all())
