"""Codebook usage against hand-made answers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqtool.api import DataSpec, Field
from vqtool.parts.metrics.codes import Codes

SPEC = DataSpec({"x": Field((1, 8), "signal")})


def measure(codes: torch.Tensor, sizes: tuple[int, ...], batch: int = 100) -> dict[str, float]:
    metric = Codes(SPEC)
    for piece in codes.split(batch):
        metric.update(codes=piece, codebook_sizes=sizes)
    return dict(metric.compute())


def test_an_even_use_of_half_the_codes():
    found = measure(torch.arange(4).repeat(6).reshape(6, 4, 1), (8,))
    assert found["codes.used"] == 0.5
    assert found["codes.perplexity"] == pytest.approx(4)
    assert found["codes.perplexity_share"] == pytest.approx(0.5)
    assert found["codes.entropy_bits"] == pytest.approx(2)
    assert found["codes.tokens"] == 24
    assert not any("group" in name for name in found)


def test_several_codebooks_are_distinguished():
    codes = torch.stack([torch.arange(8) % 4, torch.zeros(8, dtype=torch.long)], -1)[None]
    found = measure(codes, (4, 12))
    assert found["codes.used.group0"] == 1
    assert found["codes.used.group1"] == pytest.approx(1 / 12)
    assert found["codes.used"] == pytest.approx(5 / 16)
    assert found["codes.entropy_bits.group0"] == pytest.approx(2)
    assert found["codes.entropy_bits.group1"] == pytest.approx(0, abs=1e-9)
    assert found["codes.perplexity"] == pytest.approx(2.5)


def test_levels_are_called_levels():
    metric = Codes(SPEC)
    codes = torch.zeros(1, 4, 2, dtype=torch.long)
    metric.update(codes=codes, codebook_sizes=(4, 4), codebook_names=("level0", "level1"))
    found = metric.compute()
    assert found["codes.used.level1"] == 0.25
    assert not any("group" in name for name in found)


@given(st.integers(1, 20), st.integers(0, 99))
def test_the_batch_size_does_not_matter(batch, seed):
    codes = torch.randint(-1, 16, (20, 3, 2), generator=torch.Generator().manual_seed(seed))
    assert measure(codes, (16, 16), batch) == pytest.approx(measure(codes, (16, 16)))


def test_masked_codes_count_nowhere():
    found = measure(torch.full((2, 3, 1), -1), (4,))
    assert found["codes.tokens"] == 0
    assert found["codes.used"] == 0
    assert found["codes.perplexity"] == 0
    assert all(math.isfinite(value) for value in found.values())
    assert Codes(SPEC).compute() == {}


def test_sizes_and_codes_must_agree():
    with pytest.raises(ValueError, match="sizes"):
        Codes(SPEC).update(codes=torch.zeros(1, 2, 3, dtype=torch.long), codebook_sizes=(4, 4))
