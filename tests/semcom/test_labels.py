"""Label tables: permutations, near codes under near labels, and never worse than what they start from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vqtool_semcom.labels import label_table


def flip_cost(labels: Tensor, vectors: Tensor) -> float:
    """Mean squared distance between two codes whose labels differ in one bit."""
    size = len(labels)
    flipped = labels[:, None] ^ 2 ** torch.arange((size - 1).bit_length())
    near = labels.argsort()[flipped.clamp_max(size - 1)]
    distances = (vectors[:, None] - vectors[near]).square().sum(-1)
    return float(distances[flipped < size].mean())


SIZES = [2, 3, 5, 16, 37, 64]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", ["identity", "pca-gray", "pseudo-gray"])
def test_a_table_gives_every_code_a_label_of_its_own(how: str, size: int) -> None:
    vectors = torch.randn(size, 3, generator=torch.Generator().manual_seed(size))
    assert sorted(label_table(how, vectors).tolist()) == list(range(size))


def test_neighbours_on_a_line_differ_in_one_bit() -> None:
    labels = label_table("pca-gray", torch.linspace(-1, 1, 16)[torch.randperm(16)][:, None])
    assert labels.shape == (16,)
    line = torch.linspace(-1, 1, 16)[:, None]
    labels = label_table("pca-gray", line)
    assert all(int(a ^ b).bit_count() == 1 for a, b in zip(labels[:-1].tolist(), labels[1:].tolist(), strict=True))


@pytest.mark.parametrize("size", [16, 37, 64])
def test_each_table_is_cheaper_than_the_one_before(size: int) -> None:
    vectors = torch.randn(size, 4, generator=torch.Generator().manual_seed(1)).double()
    identity, gray, switched = (flip_cost(label_table(how, vectors), vectors)
                                for how in ("identity", "pca-gray", "pseudo-gray"))  # fmt: skip
    assert switched < gray < identity
    assert switched < 0.75 * identity


def test_no_single_switch_improves_a_pseudo_gray_table() -> None:
    """Every pair is tried by brute force: what `_switched` adds up piece by piece is the true change."""
    vectors = torch.randn(11, 2, generator=torch.Generator().manual_seed(2)).double()
    labels = label_table("pseudo-gray", vectors)
    cost = flip_cost(labels, vectors)
    for a in range(11):
        for b in range(a):
            other = labels.clone()
            other[[a, b]] = other[[b, a]]
            # edges are weighed alike only where their number is the same; it is, since labels only change hands
            assert flip_cost(other, vectors) >= cost - 1e-9


def test_the_corners_of_a_cube_are_found_again() -> None:
    """Codes on a hypercube have a perfect table: every flip is one edge."""
    corners = (torch.arange(16)[:, None] >> torch.arange(4) & 1).double()
    corners = corners[torch.randperm(16, generator=torch.Generator().manual_seed(3))]
    assert flip_cost(label_table("pseudo-gray", corners), corners) < 1.5  # 1 is the least, random tables cost 2
