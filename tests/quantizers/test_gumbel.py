"""The chunked Gumbel choice against plain autograd, and the quality of its noise."""

from __future__ import annotations

import math

import pytest
import torch

from vqtool.quantizers import gumbel as module
from vqtool.quantizers.core.draw import column_keys, gumbel, noise_keys


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_gradients_equal_plain_autograd(monkeypatch, masked, noisy, temperature):
    monkeypatch.setattr(module, "CHUNK", 200)
    torch.manual_seed(0)
    x, weight, bias, codes = torch.randn(30, 6), torch.randn(14, 6), torch.randn(14), torch.randn(2, 7, 3)
    leaves = [t.double().requires_grad_() for t in (x, weight, bias, codes)]
    valid = torch.rand(30) > 0.3 if masked else None
    keys = noise_keys(x[None], weight) if noisy else None
    up, up_usage = torch.randn(30, 6).double(), torch.randn(2, 7).double()
    value, chosen, usage = module.Choice.apply(*leaves, valid, temperature, keys)
    ours = torch.autograd.grad((value * up).sum() + (usage * up_usage).sum(), leaves)

    keep = torch.ones(30, dtype=torch.bool) if valid is None else valid
    logits = (leaves[0] @ leaves[1].t() + leaves[2]).view(30, 2, 7)
    noise = -gumbel(keys, column_keys(14, x.device)).view(30, 2, 7).double() if noisy else 0
    soft = ((logits + noise) / temperature).softmax(-1)
    hard = torch.nn.functional.one_hot((logits + noise).argmax(-1), 7) - soft.detach() + soft
    plain_value = torch.einsum("ngk,gkd->ngd", hard, leaves[3]).reshape(30, 6) * keep[:, None]
    plain_usage = logits.softmax(-1)[keep].mean(0)
    plain = torch.autograd.grad((plain_value * up).sum() + (plain_usage * up_usage).sum(), leaves)
    assert torch.equal(chosen[keep], (logits + noise).argmax(-1)[keep])
    assert torch.allclose(value, plain_value)
    for a, b in zip(ours, plain, strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_noise_is_gumbel_and_independent():
    keys = noise_keys(torch.randn(4, 500, 8), torch.randn(9, 8))
    noise = -gumbel(keys, column_keys(320, keys.device))
    euler = 0.5772156649
    assert float(noise.mean()) == pytest.approx(euler, abs=0.01)
    assert float(noise.std()) == pytest.approx(math.pi / math.sqrt(6), abs=0.01)
    sorted_noise = noise.flatten().double().sort().values
    expected = (torch.arange(sorted_noise.numel()) + 0.5).double() / sorted_noise.numel()
    assert float((torch.exp(-torch.exp(-sorted_noise)) - expected).abs().max()) < 3e-3  # Kolmogorov's distance
    centred = noise - noise.mean()
    rows, columns = centred[:1000] / centred.std(), centred.t()[:300] / centred.std()
    for table in (rows, columns):
        correlation = table @ table.t() / table.shape[1]
        correlation.fill_diagonal_(0)
        assert float(correlation.std()) < 1.2 / math.sqrt(table.shape[1])
        assert float(correlation.abs().max()) < 7 / math.sqrt(table.shape[1])


def test_choice_follows_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    x = torch.randn(1, 60_000, 1)
    keys = noise_keys(x, torch.randn(3, 1))
    codes = (logits - gumbel(keys, column_keys(4, keys.device))).argmax(1)
    share = torch.bincount(codes, minlength=4) / 60_000
    assert torch.allclose(share, logits.softmax(0), atol=0.01)


def test_noise_changes_with_token_place_and_weights():
    z, weight = torch.randn(2, 3, 4), torch.randn(5, 4)
    z[0, 1] = z[0, 0]
    keys = noise_keys(z, weight)
    assert keys.unique().numel() == 6
    assert torch.equal(keys, noise_keys(z, weight))
    assert not bool((keys == noise_keys(z, weight + 1e-6)).any())
