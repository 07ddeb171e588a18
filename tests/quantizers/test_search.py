"""Nearest-code search against brute force in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtool.quantizers.core import search as module
from vqtool.quantizers.core.search import nearest, nearest_few


def brute(x, codebook):
    return torch.cdist(x.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist").square()


def excess(x, codebook):
    codes, finite = nearest(x, codebook)
    assert bool(finite.all())
    distance = brute(x, codebook)
    best = distance.min(1).values
    spread = (codebook.double() - codebook.double().mean(0)).square().sum(1).mean()
    return float(((distance.gather(1, codes[:, None]).squeeze(1) - best) / (best + spread)).max())


@settings(max_examples=40)
@given(
    size=st.sampled_from([1, 2, 7, 255, 256, 257, 511, 512, 1000]),
    dim=st.integers(1, 40),
    scale=st.sampled_from([1.0, 1e-18, 1e-30, 1e15]),
    offset=st.sampled_from([0.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_as_near_as_float64(size, dim, scale, offset, seed):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(90, dim, generator=generator) + offset) * scale
    codebook = (torch.randn(size, dim, generator=generator) + offset) * scale
    assert excess(x, codebook) < 1e-6


def test_no_wrong_code_at_an_offset_of_ten_thousand():
    generator = torch.Generator().manual_seed(0)
    x, codebook = (torch.randn(n, 64, generator=generator) + 1e4 for n in (4096, 1024))
    wrong = nearest(x, codebook)[0] != brute(x, codebook).argmin(1)
    assert int(wrong.sum()) == 0


def test_a_far_off_code_costs_no_accuracy():
    generator = torch.Generator().manual_seed(0)
    x, codebook = torch.randn(500, 64, generator=generator), torch.randn(1000, 64, generator=generator)
    codebook[5] = 1e6
    assert torch.equal(nearest(x, codebook)[0], brute(x, codebook).argmin(1))


@pytest.mark.parametrize("size", [6, 100, 256, 300, 512, 1111])
@pytest.mark.parametrize("count", [1, 2, 3, 17, 400])
def test_ties_go_to_the_lowest_index(size, count):
    generator = torch.Generator().manual_seed(size)
    codebook = torch.randn(size, 5, generator=generator)[torch.randint(0, size, (size,), generator=generator)]
    same = (codebook[:, None] == codebook[None]).all(2)
    lowest = same.int().argmax(1)
    codes, _ = nearest(torch.randn(count, 5, generator=generator), codebook)
    assert torch.equal(lowest[codes], codes)


def test_chunks_change_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, codebook = torch.randn(700, 9, generator=generator), torch.randn(300, 9, generator=generator)
    whole = nearest(x, codebook)[0]
    monkeypatch.setitem(module.CHUNK_SCORES, "cpu", 3000)
    assert torch.equal(nearest(x, codebook)[0], whole)


@pytest.mark.parametrize("size", [16, 512])
def test_tokens_that_are_not_finite_are_flagged_and_change_no_other(size):
    generator = torch.Generator().manual_seed(0)
    x, codebook = torch.randn(50, 4, generator=generator), torch.randn(size, 4, generator=generator)
    clean, _ = nearest(x, codebook)
    x[3, 1], x[10, 0], x[20] = torch.nan, torch.inf, -torch.inf
    codes, finite = nearest(x, codebook)
    assert (~finite).nonzero().squeeze(1).tolist() == [3, 10, 20]
    assert torch.equal(codes[finite], clean[finite])
    assert int(codes.min()) >= 0
    assert int(codes.max()) < size


def test_degenerate_inputs():
    assert nearest(torch.zeros(0, 4), torch.randn(5, 4))[0].shape == (0,)
    assert nearest(torch.randn(3, 4), torch.zeros(5, 4))[0].tolist() == [0, 0, 0]
    assert nearest(torch.randn(3, 4).bfloat16(), torch.randn(5, 4))[0].shape == (3,)


def test_memory_never_holds_all_scores():
    x, codebook = torch.randn(20_000, 8), torch.randn(1024, 8)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple) else (out,):
                largest = max(largest, t.numel()) if isinstance(t, torch.Tensor) else largest
            return out

    with Watch():
        nearest(x, codebook)
    assert largest <= module.CHUNK_SCORES["cpu"]


def test_an_accelerator_gets_few_large_products_that_are_bounded():
    shapes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.bmm.default:
                shapes.append(out.numel())
            return out

    with Watch():
        nearest(torch.empty(2**20, 8, device="meta"), torch.empty(1024, 8, device="meta"))
    assert shapes == [module.CHUNK_SCORES_ELSEWHERE] * 4


@pytest.mark.parametrize(("size", "few"), [(3, 3), (17, 4), (130, 1), (300, 8), (1024, 5)])
def test_the_few_nearest_are_those_of_brute_force_in_order(size, few, monkeypatch):
    generator = torch.Generator().manual_seed(size)
    x, codebook = torch.randn(70, 6, generator=generator), torch.randn(size, 6, generator=generator)
    monkeypatch.setitem(module.CHUNK_SCORES, "cpu", 20 * size)  # several chunks, the last one smaller
    assert torch.equal(nearest_few(x, codebook, few), brute(x, codebook).topk(few, 1, largest=False).indices)
    with pytest.raises(ValueError, match="nearest of"):
        nearest_few(x, codebook, size + 1)
