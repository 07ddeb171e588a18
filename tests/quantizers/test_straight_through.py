"""The custom functions: values bit for bit, gradients against plain autograd."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vqtool.nn import straight_through
from vqtool.quantizers.core.codebook import Found
from vqtool.nn.codebook_loss import codebook_loss
from vqtool.nn.rotation_trick import rotate_back
from vqtool.quantizers.core.straight_through import pass_on, squared_distance


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("with_pull", [False, True])
def test_gradient_equals_plain_autograd(monkeypatch, masked, with_pull):
    monkeypatch.setattr(straight_through, "CHUNK", 50)
    z, value = torch.randn(30, 8, requires_grad=True), torch.randn(30, 8)
    valid = torch.rand(30) > 0.3 if masked else None
    upstream = torch.randn(30, 8)
    squares = squared_distance(z, value, valid)
    pairs = valid.sum() * 8 if masked else 240
    out, term = pass_on(z, value, valid, squares, pairs, pull=(z - value).detach() if with_pull else None)
    assert torch.equal(out.detach(), value)
    ((out * upstream).sum() + 0.7 * term).backward()
    keep = torch.ones(30, 1) if valid is None else valid[:, None].float()
    w = z.detach().clone().requires_grad_()
    expected = ((w - value).square() * keep).sum() / (keep.sum() * 8)
    ((w * upstream * keep).sum() + 0.7 * expected).backward()
    assert torch.allclose(term, expected)
    assert torch.allclose(z.grad, w.grad, atol=1e-6)


def test_only_one_of_both_outputs_may_be_used():
    z, value = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3)
    out, term = pass_on(z, value, None, squared_distance(z, value, None), 15)
    (only_value,) = torch.autograd.grad(out.sum(), z, retain_graph=True)
    (only_term,) = torch.autograd.grad(term, z)
    assert torch.equal(only_value, torch.ones(5, 3))
    assert torch.allclose(only_term, 2 * (z - value).detach() / 15)


def test_codebook_loss_equals_plain_autograd():
    table, z = torch.randn(7, 4, requires_grad=True), torch.randn(40, 4)
    codes = torch.randint(0, 7, (40,))
    valid = torch.rand(40) > 0.2
    found = Found(codes.masked_fill(~valid, -1), valid, torch.tensor(0))
    rows = table[codes].detach()
    term = codebook_loss(table, z, found, squared_distance(z, rows, valid), valid.sum() * 4)
    (ours,) = torch.autograd.grad(term, table)
    (plain,) = torch.autograd.grad(F.mse_loss(table[codes[valid]], z[valid]), table)
    assert torch.allclose(ours, plain, atol=1e-6)


def test_rotation_equals_its_definition():
    z, value = torch.randn(20, 6, dtype=torch.float64), torch.randn(20, 6, dtype=torch.float64)
    upstream = torch.randn(20, 6, dtype=torch.float64)
    x = z.clone().requires_grad_()
    (ours,) = torch.autograd.grad(rotate_back(x, value, None, 1e9), x, upstream)
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
    (gradient,) = torch.autograd.grad(rotate_back(z, value, None, 2.0), z, torch.ones(4, 3))
    assert bool(gradient.isfinite().all())
    assert float(gradient.norm(dim=1).max()) <= 2.0 * 3**0.5 + 1e-5
