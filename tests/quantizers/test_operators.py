"""The pass of an accelerator without kernels: what it gives, and in how many operators, counted on the meta device."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vqtool.quantizers import VQ, Grouped, Residual
from vqtool.quantizers.core import codebook
from vqtool.quantizers.gpu import operators, switch

VIEWS = {  # these launch nothing
    "view", "_unsafe_view", "reshape", "t", "transpose", "expand", "slice", "select", "unsqueeze", "squeeze", "detach",
    "alias", "split", "split_with_sizes", "unbind", "as_strided", "permute", "view_as", "empty", "empty_like",
    "new_empty", "empty_strided", "lift_fresh", "is_same_size", "unsafe_split",
}  # fmt: skip


class Count(TorchDispatchMode):
    """Names of the operators that ran inside it."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        if name not in VIEWS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


CASES = {
    "vq": (partial(VQ, codebook_size=1024, start="random"), (8, 4096, 64)),
    "residual 8": (partial(Residual, levels=8, of=partial(VQ, codebook_size=1024, start="random")), (8, 512, 128)),
    "grouped 4": (partial(Grouped, groups=4, of=partial(VQ, codebook_size=320, start="random")), (8, 512, 128)),
    "grouped residual": (
        partial(Grouped, groups=2, of=partial(Residual, levels=2, of=partial(VQ, codebook_size=320, start="random"))),
        (8, 512, 128),
    ),
}


def step(make, shape, train=True):
    """The operators of a step: forward, backward from a gradient of the values and the commitment, update."""
    quantizer, x = make(shape[-1]), torch.randn(shape)
    quantizer.initialise(x[:1])
    quantizer.train(train).to("meta")
    x = x.to("meta").requires_grad_(train)
    upstream, weight = torch.empty_like(x), torch.empty((), device="meta")
    with Count() as count:
        result = quantizer(x)
        if train:
            torch.autograd.backward([result.z, result.terms["commitment"]], [upstream, weight])
            quantizer.update(result.stats)
    assert "_local_scalar_dense" not in count.names  # no wait for the device
    return len(count.names)


@pytest.mark.parametrize(
    ("case", "train", "encode"), [("vq", 134, 56), ("residual 8", 211, 120), ("grouped 4", 142, 58)]
)
def test_without_kernels(case, train, encode, monkeypatch):
    monkeypatch.setenv("VQTOOL_KERNELS", "off")
    assert step(*CASES[case]) <= train
    assert step(*CASES[case], train=False) <= encode


@pytest.mark.parametrize(
    ("case", "train", "encode"), [("vq", 4, 1), ("residual 8", 5, 2), ("grouped 4", 5, 2), ("grouped residual", 5, 2)]
)
def test_with_kernels_each_is_one_operator(case, train, encode, monkeypatch):
    monkeypatch.delenv("VQTOOL_KERNELS", raising=False)
    assert step(*CASES[case]) <= train
    assert step(*CASES[case], train=False) <= encode


SOME = partial(VQ, codebook_size=20, revive_below=0.5)
KINDS = {
    "vq": SOME,
    "residual": partial(Residual, levels=3, of=SOME),
    "grouped": partial(Grouped, groups=4, of=SOME),
    "grouped residual": partial(Grouped, groups=2, of=partial(Residual, levels=3, of=SOME)),
    "grouped grouped": partial(Grouped, groups=2, of=partial(Grouped, groups=2, of=SOME)),
    "frozen": partial(VQ, codebook_size=20, codes="frozen"),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_at_once_gives_what_part_by_part_gives(kind, masked, monkeypatch):
    """Three training steps and an evaluation, with tokens that are not finite, on a CPU in the place of another."""
    ends, passes = [], []
    at_once = {False: lambda *_: None, True: lambda *_: passes.append(1) or operators}
    for way in (False, True):
        monkeypatch.setattr(switch, "whole", at_once[way])
        torch.manual_seed(0)
        quantizer = KINDS[kind](16)
        end = []
        for train in (True, True, True, False):
            x, upstream = torch.randn(4, 30, 16) * 2 + 1, torch.randn(4, 30, 16)
            mask = torch.rand(4, 30) > 0.3 if masked else None
            quantizer.train(train)
            if quantizer.initialised:
                x[1, 5, 7] = torch.nan
            result = quantizer(x.requires_grad_(), mask)
            ((result.z * upstream).sum() + 3 * result.terms["commitment"]).backward()
            quantizer.update(result.stats) if train else None
            end += [result.z, result.codes, result.terms["commitment"], x.grad, result.not_finite, result.hard]
            end += [part for one in result.stats for part in (one.counts, one.sums, one.samples)]
        ends.append([*end, *quantizer.vectors(), *(quantizer.code_use() or ())])
    assert len(passes) == 4
    for found, wanted in zip(*ends, strict=True):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True) if not pair[0].is_floating_point())


def test_codebooks_that_are_alike_move_as_one_and_as_each_alone(monkeypatch):
    """Also where some have more tokens than others, as experts have, or are too large to be copied."""
    torch.manual_seed(0)
    made = [VQ(6, codebook_size=size, revive_below=0.5, start="random") for size in (20, 20, 30, 20, 20)]
    stats = {}
    for quantizer, many in zip(made, (50, 50, 50, 12, 50), strict=True):
        quantizer.initialise(torch.randn(1, 60, 6))
        stats[quantizer.codebook] = quantizer(torch.randn(1, many, 6)).stats[0]
    wanted = []
    for book, some in stats.items():
        before = book.codes.clone(), book.weights.clone()
        book.update(some)
        wanted.append((book.codes.clone(), book.weights.clone()))
        book.codes.copy_(before[0]), book.weights.copy_(before[1])
    calls = []
    monkeypatch.setattr(switch, "usable", lambda *_: True)
    monkeypatch.setattr(switch.ops, "follow", lambda *a: calls.append(len(a[0])) or operators.follow(*a), raising=False)
    codebook.update_all(stats)
    assert sorted(calls) == [1, 1, 3]
    for book, (codes, weights) in zip(stats, wanted, strict=True):
        assert torch.equal(book.codes, codes)
        assert torch.equal(book.weights, weights)
