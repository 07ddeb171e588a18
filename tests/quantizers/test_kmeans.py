"""The start of a codebook."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from vqtool.quantizers.core.kmeans import kmeans, random_rows
from vqtool.quantizers.core.search import nearest


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_finds_separate_clusters():
    centres = torch.randn(12, 5, generator=generator()) * 20
    points = centres.repeat(40, 1) + torch.randn(480, 5, generator=generator(1)) * 0.1
    found = kmeans(points, 12, generator(2))
    codes, _ = nearest(points, found)
    assert float((points - found[codes]).square().sum(1).mean()) < 5.0  # random rows alone give some 500


def test_is_better_than_random_rows():
    points = torch.randn(2000, 8, generator=generator())

    def error(codes):
        return float((points - codes[nearest(points, codes)[0]]).square().sum(1).mean())

    assert error(kmeans(points, 64, generator())) < 0.85 * error(random_rows(points, 64, generator()))


@given(count=st.integers(1, 60), size=st.integers(2, 80), copies=st.integers(1, 3), seed=st.integers(0, 99))
def test_no_two_codes_are_equal(count, size, copies, seed):
    points = torch.randn(count, 3, generator=generator(seed)).repeat(copies, 1)
    for start in (kmeans, random_rows):
        codes = start(points, size, generator(seed))
        assert codes.shape == (size, 3)
        assert torch.unique(codes, dim=0).shape[0] == size
        assert bool(codes.isfinite().all())


def test_points_that_are_all_equal_still_give_distinct_codes():
    for value in (0.0, 5.0):
        codes = kmeans(torch.full((10, 4), value), 6, generator())
        assert torch.unique(codes, dim=0).shape[0] == 6


def test_same_seed_same_codes_and_no_global_draw():
    points = torch.randn(100, 4)
    before = torch.get_rng_state()
    assert torch.equal(kmeans(points, 10, generator(3)), kmeans(points, 10, generator(3)))
    assert torch.equal(before, torch.get_rng_state())
