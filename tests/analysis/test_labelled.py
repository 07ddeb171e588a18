"""Labelled tokens: labels on another grid than the tokens, and values that stay beside their label."""

from __future__ import annotations

import torch

from vqtool.analysis.labelled import Labelled, token_labels


def test_a_token_takes_the_label_at_its_middle() -> None:
    frames = torch.tensor([[0, 1, 2, 3]])
    assert token_labels(frames, 4).tolist() == [[0, 1, 2, 3]]
    assert token_labels(frames, 2).tolist() == [[1, 3]]
    assert token_labels(frames, 8).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
    assert token_labels(torch.tensor([4, 5]), 3).tolist() == [[4, 4, 4], [5, 5, 5]]


def test_values_stay_with_their_labels_over_batches() -> None:
    gathered = Labelled()
    for batch in range(3):
        labels = torch.tensor([[0, -1, 1], [-1, -1, batch]])
        codes = 100 * batch + torch.arange(6).view(2, 3, 1)
        gathered.add(labels, torch.tensor([7, 8]), (600,), codes=codes, features=codes.double(), context=None)
    assert gathered["labels"].tolist() == [0, 1, 0, 0, 1, 1, 0, 1, 2]
    assert gathered["codes"][:, 0].tolist() == [0, 2, 5, 100, 102, 105, 200, 202, 205]
    assert gathered["rows"].tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5]
    assert gathered["places"].tolist() == [0, 2, 2] * 3
    assert gathered["groups"].tolist() == [7, 7, 8] * 3
    assert gathered.names() == ["codes", "features"]
    assert (gathered.sizes, gathered.tokens) == ((600,), 3)
    assert len(Labelled()["labels"]) == 0
