"""Context networks: every token sees the others, padding reaches none, and the memory is what its recurrence says."""

from __future__ import annotations

import pytest
import torch

from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.parts.contexts.xlstm import recall

KINDS = catalog().names("context")
SMALL = {"width": 16, "heads": 2, "layers": 2}


def small(kind: str, **more: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return catalog().load("context", kind)(6, **{**SMALL, **more}).eval()


def padded(mask_from: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows [3, 12, 6] of which the second has 7 real tokens."""
    torch.manual_seed(1)
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[1, mask_from:] = False
    return torch.randn(3, 12, 6), mask


def reads_padding(context: torch.nn.Module) -> bool:
    """Whether what is masked changes a real token, or real tokens differ from those of the window without padding."""
    z, mask = padded()
    other = torch.where(mask[..., None], z, 1e3)
    same = torch.equal(context(z, mask)[mask], context(other, mask)[mask])
    return not same or not torch.allclose(context(z, mask)[1, :7], context(z[1:2, :7])[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_shape_and_width(kind):
    context = small(kind)
    assert context.dim == 6
    assert context(torch.randn(2, 9, 6)).shape == (2, 9, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_not_looked_at(kind):
    assert not reads_padding(small(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_context_that_forgets_the_mask_is_caught(kind):
    context = small(kind)
    forward = context.forward
    context.forward = lambda z, mask=None: forward(z)  # the mutant
    assert reads_padding(context)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_tokens_get_zeros_and_no_gradient_even_if_not_finite(kind):
    context = small(kind)
    z, mask = padded()
    z = torch.where(mask[..., None], z, torch.nan).requires_grad_()
    out = context(z, mask)
    assert not bool(out[~mask].any())
    out.square().sum().backward()
    assert bool(z.grad.isfinite().all())
    assert not bool(z.grad[~mask].any())
    assert all(bool(p.grad.isfinite().all()) for p in context.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_without_a_real_token_is_finite(kind):
    assert bool(small(kind)(torch.randn(1, 5, 6), torch.zeros(1, 5, dtype=torch.bool)).isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_windows_do_not_see_each_other(kind):
    context = small(kind)
    z, mask = padded()
    torch.testing.assert_close(context(z, mask)[:1], context(z[:1], mask[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_sees_before_and_behind(kind):
    context = small(kind)
    z = torch.randn(1, 12, 6, requires_grad=True)
    for token in (0, 6, 11):
        (grad,) = torch.autograd.grad(context(z)[0, token].square().sum(), z)
        assert bool((grad[0].abs().amax(1) > 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_order_matters(kind):
    context = small(kind)
    z = torch.randn(1, 12, 6)
    assert not torch.allclose(context(z.flip(1)).flip(1), context(z), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_heads_must_divide_the_width(kind):
    with pytest.raises(VqtoolError, match="heads"):
        small(kind, heads=3)


@pytest.mark.parametrize("offset", [0.0, 40.0, -40.0])
def test_the_parallel_memory_is_its_recurrence(offset):
    torch.manual_seed(0)
    batch, heads, steps, width = 2, 3, 9, 4
    query, key, value = torch.randn(3, batch, heads, steps, width).double()
    write = 2 * torch.randn(batch, heads, steps).double() + offset
    kept = torch.nn.functional.logsigmoid(2 * torch.randn(batch, heads, steps).double())
    memory, total = torch.zeros(batch, heads, width, width).double(), torch.zeros(batch, heads, width).double()
    expected = []
    for t in range(steps):
        keep, gain = kept[..., t].exp()[..., None], write[..., t].exp()[..., None]
        small_key = key[..., t, :] / width**0.5
        memory = keep[..., None] * memory + gain[..., None] * value[..., t, :, None] * small_key[..., None, :]
        total = keep * total + gain * small_key
        asked = query[..., t, :]
        size = (total * asked).sum(-1, keepdim=True).abs().clamp_min(1)
        expected.append((memory * asked[..., None, :]).sum(-1) / size)
    torch.testing.assert_close(recall(query, key, value, write, kept), torch.stack(expected, 2))
