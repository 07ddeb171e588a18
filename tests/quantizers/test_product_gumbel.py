"""Gumbel codes: noise in training only, logits it matters for, temperature, and what the two diversities can see."""

from __future__ import annotations

import math

import pytest
import torch

from vqtool.quantizers.gumbel import ProductGumbel


def tokens(batch: int = 4, length: int = 250, dim: int = 128) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(batch, length, dim)


def hard_perplexity(codes: torch.Tensor, group: int) -> float:
    share = torch.bincount(codes[..., group].flatten(), minlength=320).double() / codes[..., group].numel()
    return float(torch.special.entr(share).sum().exp())


def logits(quantizer: ProductGumbel, z: torch.Tensor) -> torch.Tensor:
    """[N, G, K]."""
    inputs, weight, bias = quantizer.logits_of(z.flatten(0, 1))
    return (inputs @ weight.t() + bias).unflatten(1, (2, -1))


@pytest.mark.parametrize("kind", ["linear", "distance"])
@pytest.mark.parametrize("scale", [1.0, 1e-2, 30.0])
def test_logits_have_the_spread_asked_for(kind, scale):
    if kind == "linear" and scale != 1.0:
        pytest.skip("a linear map grows with its input; its spread is that of its start")
    torch.manual_seed(1)
    quantizer = ProductGumbel(128, logits=kind, spread=3.0)
    spread = logits(quantizer, scale * tokens()).std(2)
    assert float(spread.mean().detach()) == pytest.approx(3.0, rel=0.05)


def test_distance_logits_are_minus_the_distance_to_each_code():
    torch.manual_seed(1)
    quantizer = ProductGumbel(128, codebook_size=40, logits="distance", spread=2.0).double().eval()
    z = tokens(2, 30).double()
    ours = logits(quantizer, z)
    away = -(z.flatten(0, 1).unflatten(1, (2, 1, 64)) - quantizer.codes).square().sum(-1)
    expected = (away - away.mean(2, keepdim=True)) / away.std(2, correction=0, keepdim=True) * 2.0
    torch.testing.assert_close(ours, expected)
    assert torch.equal(quantizer(z).codes.flatten(0, 1), away.argmax(2))


def test_raw_distances_would_drown_the_noise():
    """The trap that `spread` is for: of raw distances the noisy choice is nearly always the nearest code."""
    torch.manual_seed(1)
    quantizer = ProductGumbel(256, logits="distance", spread=28.1)  # what the distances of 128 features spread by
    z = tokens(dim=256)
    noisy, nearest = quantizer.train()(z).codes, quantizer.eval()(z).codes
    assert float((noisy == nearest).float().mean()) > 0.85
    quantizer.spread = 4.0
    assert float((quantizer.train()(z).codes == nearest).float().mean()) < 0.7


@pytest.mark.parametrize("kind", ["linear", "distance"])
def test_noise_in_training_only(kind):
    torch.manual_seed(1)
    quantizer = ProductGumbel(128, logits=kind)
    z = tokens()
    assert torch.equal(quantizer.eval()(z).codes.flatten(0, 1), logits(quantizer, z).argmax(2))
    assert not torch.equal(quantizer.train()(z).codes, quantizer.eval()(z).codes)
    quantizer.temperature = 0.1
    cold = quantizer.eval()(z)
    quantizer.temperature = 5.0
    assert torch.equal(cold.codes, quantizer(z).codes)
    assert torch.equal(cold.usage, quantizer(z).usage)


@pytest.mark.parametrize("kind", ["linear", "distance"])
def test_a_lower_temperature_sharpens_the_gradient(kind):
    torch.manual_seed(1)
    quantizer = ProductGumbel(16, codebook_size=20, logits=kind, spread=1.0)
    up = torch.randn(1, 400, 16)
    sizes = []
    for temperature in (5.0, 1.0):
        quantizer.temperature = temperature
        z = tokens(1, 400, 16).requires_grad_()
        (grad,) = torch.autograd.grad((quantizer(z).z * up).sum(), z)
        sizes.append(float(grad.norm()))
    assert sizes[1] > 1.5 * sizes[0]


def test_terms_are_what_they_say():
    torch.manual_seed(1)
    quantizer = ProductGumbel(16, codebook_size=32, groups=2).eval()
    given = quantizer(tokens(2, 50, 16))
    perplexity = torch.special.entr(logits(quantizer, tokens(2, 50, 16)).softmax(2).mean(0)).sum(1).exp()
    torch.testing.assert_close(torch.special.entr(given.usage).sum(1).exp(), perplexity)
    unused = float(-(perplexity.detach() / 32).log().mean())
    assert float(given.terms["log-perplexity"].detach()) == pytest.approx(unused, rel=1e-4)
    assert float(given.terms["hf"].detach()) == pytest.approx(float((64 - perplexity.detach().sum()) / 64), rel=1e-4)


@pytest.mark.parametrize(
    ("used", "log_perplexity", "hf"), [(32, 2.303, 0.900), (160, 0.693, 0.500), (256, 0.223, 0.200)]
)
def test_both_forms_at_known_perplexities(used, log_perplexity, hf):
    usage = torch.zeros(2, 320)
    usage[:, :used] = 1 / used
    terms = ProductGumbel(16).all_terms(usage)
    assert float(terms["log-perplexity"]) == pytest.approx(log_perplexity, abs=1e-3)
    assert float(terms["hf"]) == pytest.approx(hf, abs=1e-3)


def test_the_soft_perplexity_alone_cannot_see_a_collapse():
    torch.manual_seed(1)
    quantizer = ProductGumbel(16, spread=1e-4).eval()
    with torch.no_grad():
        quantizer.linear.bias[[5, 325]] = 1e-2  # one code a little likelier than all others, for every token
    given = quantizer(tokens(dim=16))
    soft = torch.special.entr(given.usage).sum(1).exp()
    assert bool((soft > 319).all())
    assert float(given.terms["log-perplexity"].detach()) < 1e-3
    assert hard_perplexity(given.codes, 0) == pytest.approx(1)


def test_hf_is_bounded_and_the_log_is_not_flat_at_collapse():
    one = torch.zeros(2, 320)
    one[:, 0] = 1
    terms = ProductGumbel(16).all_terms(one)
    assert float(terms["hf"]) == pytest.approx(0.9969, abs=1e-4)
    assert float(terms["log-perplexity"]) == pytest.approx(math.log(320), abs=1e-3)
