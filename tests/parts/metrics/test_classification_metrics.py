"""Accuracy by path and level, the gap between paths, and the two entropies."""

from __future__ import annotations

import math

import pytest
import torch

from vqtool.api import DataSpec
from vqtool.parts.metrics.accuracy import Accuracy
from vqtool.parts.metrics.entropies import Entropies

SPEC = DataSpec({})


def one_hot(classes: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(classes), 3).float()


def test_accuracy_and_gap_over_batches() -> None:
    metric = Accuracy(SPEC)
    metric.update(scores={"": one_hot([0, 1]), "hard.3db": one_hot([0, 1]), "soft.3db": one_hot([0, 0])},
                  label=torch.tensor([0, 1]))  # fmt: skip
    metric.update(scores={"": one_hot([2, 1, 0]), "hard.3db": one_hot([2, 1, 0]), "soft.3db": one_hot([0, 0, 0])},
                  label=torch.tensor([1, -1, 1]))  # fmt: skip
    figures = metric.compute()
    assert figures["accuracy"] == figures["accuracy.hard.3db"] == pytest.approx(2 / 4)
    assert figures["accuracy.soft.3db"] == pytest.approx(1 / 4)
    assert figures["gap.3db"] == pytest.approx(1 / 4)
    assert Accuracy(SPEC).compute() == {}


def test_diversity_and_softness_are_distinguished() -> None:
    codes = torch.zeros(2, 4, 1, dtype=torch.long)
    unsure = torch.full((2, 4, 1, 4), 0.25)
    sure = torch.eye(4)[torch.arange(4)].expand(2, 4, 4)[:, :, None]
    dead = torch.eye(4)[torch.zeros(4, dtype=torch.long)].expand(2, 4, 4)[:, :, None]
    for probs, use, token in ((unsure, math.log(4), math.log(4)), (sure, math.log(4), 0), (dead, 0, 0)):
        metric = Entropies(SPEC)
        metric.update(probs=probs, codes=codes)
        assert metric.compute() == pytest.approx({"entropy.use": use, "entropy.token": token}, abs=1e-9)


def test_masked_tokens_count_in_no_entropy() -> None:
    metric = Entropies(SPEC)
    probs = torch.stack([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])])[None]
    metric.update(probs=probs, codes=torch.tensor([[[0], [-1]]]))
    assert metric.compute() == pytest.approx({"entropy.use": 0, "entropy.token": 0})
