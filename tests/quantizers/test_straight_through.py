"""The custom functions: values bit for bit, gradients against plain autograd."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vqtool.quantizers.core.codebook import Codebook
from vqtool.quantizers.estimators import straight_through as module
from vqtool.quantizers.estimators.diveq import DiVeQ
from vqtool.quantizers.estimators.rotation import Rotation
from vqtool.quantizers.estimators.straight_through import (
    StraightThrough,
    mean_of,
    squared_distance,
    straight_through,
    unit,
)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_gradient_equals_plain_autograd(monkeypatch, masked, given):
    monkeypatch.setattr(module, "CHUNK", 50)
    z, value = torch.randn(30, 8, requires_grad=True), torch.randn(30, 8)
    valid = torch.rand(30) > 0.3 if masked else None
    keep = torch.ones(30, 1) if valid is None else valid[:, None].float()
    with torch.no_grad():  # rows that do not count are zeros, of inputs and of values
        z.mul_(keep)
        value.mul_(keep)
    upstream = torch.randn(30, 8) * keep
    out, sse = straight_through(z, value, squared_distance(z, value, valid), (z - value).detach() if given else None)
    term = mean_of(sse, valid.sum() * 8 if masked else 240)
    assert torch.equal(out.detach(), value)
    ((out * upstream).sum() + 0.7 * term).backward()
    w = z.detach().clone().requires_grad_()
    expected = (w - value).square().sum() / (keep.sum() * 8)
    ((w * upstream).sum() + 0.7 * expected).backward()
    assert torch.allclose(term, expected)
    assert torch.allclose(z.grad, w.grad, atol=1e-6)


def test_the_distance_is_that_of_the_valid_rows():
    z, value, valid = torch.randn(30, 8), torch.randn(30, 8), torch.rand(30) > 0.3
    assert torch.allclose(squared_distance(z, value, valid), (z - value)[valid].square().sum())


def test_only_one_of_both_outputs_may_be_used():
    z, value = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3)
    out, sse = straight_through(z, value, squared_distance(z, value, None))
    (only_value,) = torch.autograd.grad(out.sum(), z, retain_graph=True)
    (only_term,) = torch.autograd.grad(mean_of(sse, 15), z)
    assert torch.equal(only_value, torch.ones(5, 3))
    assert torch.allclose(only_term, 2 * (z - value).detach() / 15)


def test_codebook_loss_equals_plain_autograd():
    book, z = Codebook(7, 4, codes="learned"), torch.randn(40, 4)
    book.set(torch.randn(7, 4))
    table = book.codes
    codes = torch.randint(0, 7, (40,))
    valid = torch.rand(40) > 0.2
    rows = table[codes].detach()
    term = book.loss(z, codes.masked_fill(~valid, -1), valid, squared_distance(z, rows, valid), valid.sum() * 4)
    (ours,) = torch.autograd.grad(term, table)
    (plain,) = torch.autograd.grad(F.mse_loss(table[codes[valid]], z[valid]), table)
    assert torch.allclose(ours, plain, atol=1e-6)


def test_rotation_equals_its_definition():
    z, value = torch.randn(20, 6, dtype=torch.float64), torch.randn(20, 6, dtype=torch.float64)
    upstream = torch.randn(20, 6, dtype=torch.float64)
    x = z.clone().requires_grad_()
    (ours,) = torch.autograd.grad(Rotation(largest_gain=1e9).estimate(x, value), x, upstream)
    for i in range(20):
        a, b = z[i] / z[i].norm(), value[i] / value[i].norm()
        r = (a + b) / (a + b).norm()
        turn = torch.eye(6, dtype=torch.float64) - 2 * torch.outer(r, r) + 2 * torch.outer(b, a)
        assert torch.allclose(turn @ a, b)  # it is the rotation that it is said to be
        assert torch.allclose(ours[i], value[i].norm() / z[i].norm() * turn.t() @ upstream[i])


@pytest.mark.parametrize("case", ["zero", "tiny", "opposite", "exact"])
def test_rotation_is_bounded_where_it_is_undefined(case):
    value = torch.randn(4, 3)
    z = {"zero": value * 0, "tiny": value * 1e-30, "opposite": -value, "exact": value.clone()}[case].requires_grad_()
    (gradient,) = torch.autograd.grad(Rotation().estimate(z, value), z, torch.ones(4, 3))
    assert bool(gradient.isfinite().all())
    assert float(gradient.norm(dim=1).max()) <= 2.0 * 3**0.5 + 1e-5


def test_a_value_that_wants_a_gradient_gets_it_too():
    z, value = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    for passed in (straight_through(z, value, torch.zeros(()))[0], Rotation().estimate(z, value)):
        (by_value,) = torch.autograd.grad(passed.sum(), value)
        assert torch.equal(by_value, torch.ones(5, 3))


def test_the_estimator_straight_through_is_the_function():
    z, value = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    passed = StraightThrough().estimate(z, value)
    assert torch.equal(passed, value)
    assert all(torch.equal(g, torch.ones(5, 3)) for g in torch.autograd.grad(passed.sum(), (z, value)))


def test_diveq_equals_plain_autograd():
    z, code = (torch.randn(20, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    upstream = torch.randn(20, 6, dtype=torch.float64)
    direction = torch.nn.functional.normalize((code - z).detach(), dim=1)
    plain = z + (code - z).norm(dim=1, keepdim=True) * direction
    wanted = torch.autograd.grad(plain, (z, code), upstream)
    passed = DiVeQ().estimate(z, code)
    assert torch.equal(passed, code)
    for ours, theirs in zip(torch.autograd.grad(passed, (z, code), upstream), wanted, strict=True):
        assert torch.allclose(ours, theirs)


def test_diveq_of_an_input_that_is_its_code_is_straight_through():
    z = torch.randn(4, 3, requires_grad=True)
    code = z.detach().clone().requires_grad_()
    by_z, by_code = torch.autograd.grad(DiVeQ().estimate(z, code).sum(), (z, code))
    assert torch.equal(by_z, torch.ones(4, 3))
    assert not bool(by_code.any())


def test_rows_of_length_one_have_the_gradient_of_a_division_that_is_bounded():
    x = torch.randn(20, 4, requires_grad=True)
    upstream = torch.randn(20, 4)
    (ours,) = torch.autograd.grad(unit(x), x, upstream)
    (plain,) = torch.autograd.grad(F.normalize(x, dim=1), x, upstream)
    assert torch.allclose(unit(x), F.normalize(x, dim=1))
    assert torch.allclose(ours, plain, atol=1e-5)
    tiny = (x.detach() * 1e-20).requires_grad_()
    (bounded,) = torch.autograd.grad(unit(tiny), tiny, upstream)
    assert float(bounded.norm(dim=1).max()) <= float(upstream.norm(dim=1).max()) / module.SHORT * 1.001
