"""The link from codes to code vectors: exact without noise, true to theory with it, and one noise for both paths."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtool.api import Quantized
from vqtool.errors import VqtoolError
from vqtool_semcom.channels.awgn import Awgn
from vqtool_semcom.channels.bsc import Bsc
from vqtool_semcom.channels.rayleigh import Rayleigh

CHANNELS = [Awgn, Rayleigh]


def quantized(size: int, tokens: int, rows: int = 6, dim: int = 4, books: int = 1, seed: int = 0) -> tuple:
    """Random codes and distributions with their tables; what flows on asks for a gradient."""
    generator = torch.Generator().manual_seed(seed)
    tables = tuple(torch.randn(size, dim, generator=generator) for _ in range(books))
    codes = torch.randint(0, size, (rows, tokens, books), generator=generator)
    scores = torch.randn(rows, tokens, books, size, generator=generator, requires_grad=True)
    hard = torch.stack([table[codes[..., q]] for q, table in enumerate(tables)]).sum(0)
    z = hard.clone().requires_grad_()
    return Quantized(z=z, codes=codes, hard=hard, probs=scores.softmax(-1)), tables, scores


@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("order", [4, 16, 64, 256])
@given(size=st.sampled_from([2, 5, 16, 100, 256, 1000]), tokens=st.integers(1, 9), books=st.integers(1, 2))
@settings(max_examples=12)
def test_without_noise_every_bit_arrives(kind: type, order: int, size: int, tokens: int, books: int) -> None:
    sent, tables, _ = quantized(size, tokens, books=books)
    channel = kind((size,) * books, order=order, labels="identity").eval()
    # fading can be deep, where even little noise is much
    received = channel(sent, tables, level=90.0 if kind is Awgn else 140.0)
    assert float(received.figures["ber"].max()) == 0
    assert torch.equal(received.codes, sent.codes)
    torch.testing.assert_close(received.hard, sent.hard, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("order", [4, 16, 64, 256])
def test_padding_is_by_the_window(order: int) -> None:
    """9 tokens of 10 bits are 90 bits, which fill no whole number of 16-, 64- or 256-QAM symbols."""
    channel = Awgn((1000,), order=order)
    sent, tables, _ = quantized(1000, 9)
    (noise,) = channel.draw(sent)
    assert noise.shape[1] == -(-90 // channel.qams[0].bits)
    received = channel.eval()(sent, tables, level=90.0)
    assert received.stages["llr"][1].shape == (6, 90)


@pytest.mark.parametrize("kind", CHANNELS)
def test_the_link_errs_as_theory_says(kind: type) -> None:
    torch.manual_seed(0)
    sent, tables, _ = quantized(256, 16, rows=1500)
    channel = kind((256,), llr="max-log").eval()
    for level in (3.0, 12.0):
        figures = channel(sent, tables, level=level).figures
        assert float(figures["ber"].mean()) == pytest.approx(float(figures["ber.theory"][0]), rel=0.04)
        assert float(figures["llr.ratio"].mean()) == pytest.approx(1, abs=0.03)
        assert float(figures["tx_power"].mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", CHANNELS)
def test_a_receiver_that_reckons_with_another_noise(kind: type) -> None:
    """Its bits are decided alike, with the confidence of that noise: LLRs of the largest term scale with 1 / N0."""
    sent, tables, _ = quantized(256, 16, rows=50)
    knows = kind((256,), llr="max-log").eval()
    noise = knows.draw(sent)
    assumes = kind((256,), llr="max-log", assumed_db=12.0).eval()
    true, assumed = (one(sent, tables, level=2.0, noise=noise) for one in (knows, assumes))
    torch.testing.assert_close(assumed.trace["llr"], true.trace["llr"] * 10)
    assert torch.equal(assumed.figures["ber"], true.figures["ber"])
    torch.testing.assert_close(assumed.trace["arrived"], true.trace["arrived"])
    assert not torch.allclose(assumed.hard, true.hard, atol=1e-2)


def test_flips_are_as_many_as_asked() -> None:
    torch.manual_seed(0)
    sent, tables, _ = quantized(64, 16, rows=500)
    channel = Bsc((64,), flip=0.1).eval()
    assert float(channel(sent, tables).figures["ber"].mean()) == pytest.approx(0.1, abs=0.005)
    clean = channel(sent, tables, level=0.0)
    assert torch.equal(clean.codes, sent.codes)
    torch.testing.assert_close(clean.hard, sent.hard, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [*CHANNELS, Bsc])
def test_certain_probabilities_take_the_hard_path(kind: type) -> None:
    """Soft and hard path are one function, through one noise: they agree where the quantizer is certain."""
    sent, tables, _ = quantized(20, 5)
    probs = torch.nn.functional.one_hot(sent.codes, 20).float()
    channel = kind((20,)).eval()
    channel.prepare(tables)
    received = channel(Quantized(z=sent.z, codes=sent.codes, hard=sent.hard, probs=probs), tables)
    assert torch.equal(received.soft, received.hard)
    assert all(torch.equal(soft, hard) for soft, hard in received.stages.values())


def test_the_receivers_posterior_is_bayes_rule() -> None:
    """P(code | y) by summing over all codes, of which labels that no code has are none; each bit has its own axis."""
    sent, tables, _ = quantized(11, 2, rows=3)
    channel = Awgn((11,), order=4, labels="identity").eval()
    (noise,) = channel.draw(sent)
    received = channel(sent, tables, level=4.0, noise=(noise,))
    n0 = torch.tensor(10**-0.4)
    y = (received.stages["symbols"][1] + (n0 / 2).sqrt() * noise).view(3, 2, 2, 2)  # 4 bits: two symbols a token
    points = channel.qams[0].symbols(channel.books[0].table())  # [11, 2, 2]
    log_p = -(y[:, :, None] - points).square().sum((-1, -2)) / n0
    torch.testing.assert_close(received.hard, log_p.softmax(-1) @ tables[0], atol=1e-5, rtol=1e-4)


def test_a_radius_weighs_near_labels_only() -> None:
    sent, tables, _ = quantized(256, 4, rows=50)
    wide, narrow = (Awgn((256,), radius=radius).eval() for radius in (None, 2))
    noise = wide.draw(sent)
    llr = wide(sent, tables, level=6.0, noise=noise).stages["llr"][1]
    posterior = narrow.posteriors(llr, sent)[0]
    assert ((posterior > 0).sum(-1) <= 37).all()  # 1 + 8 + 28 labels of 8 bits
    same, near = (c(sent, tables, level=12.0, noise=noise).hard for c in (wide, narrow))
    assert float((same - near).square().mean()) < 0.05 * float(same.square().mean())


def test_a_radius_where_no_code_is_near_weighs_all() -> None:
    channel = Awgn((5,), radius=0, labels="identity").eval()
    posterior = channel.books[0].posterior(torch.tensor([9.0, 9.0, 9.0]))  # 111: no code of five is called so
    assert posterior.sum() == pytest.approx(1)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", [*CHANNELS, Bsc])
def test_blend_of_value_and_gradient(kind: type, share: float) -> None:
    """The value is the hard path's where `hard` = 1, the soft path's where 0; the gradient reaches the scores."""
    sent, tables, scores = quantized(16, 4)
    channel = kind((16,), hard=share, gradient="link").train()
    received = channel(sent, tables, level=0.1 if kind is Bsc else 5.0)
    if share == 1:
        torch.testing.assert_close(received.z, received.hard, atol=1e-5, rtol=1e-4)
    if share == 0:
        torch.testing.assert_close(received.z, received.soft)
    received.z.square().sum().backward()
    assert float(scores.grad.abs().max()) > 0
    assert sent.z.grad is None


@pytest.mark.parametrize("gradient", ["straight-through", "both"])
def test_straight_through_gives_the_latents_the_identity(gradient: str) -> None:
    sent, tables, scores = quantized(16, 4)
    channel = Awgn((16,), gradient=gradient).train()
    wanted = torch.randn_like(sent.hard)
    (channel(sent, tables, level=5.0).z * wanted).sum().backward()
    torch.testing.assert_close(sent.z.grad, wanted)
    assert (scores.grad is None) == (gradient == "straight-through")


def test_without_probabilities_the_gradient_goes_straight_through() -> None:
    sent, tables, _ = quantized(16, 4)
    received = Awgn((16,)).train()(Quantized(z=sent.z, codes=sent.codes, hard=sent.hard), tables, level=5.0)
    assert received.soft is None
    assert torch.equal(received.z, received.hard)
    received.z.sum().backward()
    torch.testing.assert_close(sent.z.grad, torch.ones_like(sent.z))


def test_training_levels_are_drawn_within_bounds_and_evaluation_is_repeatable() -> None:
    channel = Awgn((16,), train_db=(2.0, 9.0))
    levels = channel.training_level(1000, torch.device("cpu"))
    assert 2 <= float(levels.min()) < 2.1
    assert 8.9 < float(levels.max()) <= 9
    sent, tables, _ = quantized(16, 4)
    channel.eval()
    torch.manual_seed(3)
    first = channel(sent, tables).hard
    torch.manual_seed(3)
    assert torch.equal(first, channel(sent, tables).hard)


def test_labels_are_made_once_and_kept_with_the_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(32, 3, generator=generator) for _ in range(2))
    channel = Awgn((32,), labels="pca-gray")
    channel.prepare((first,))
    kept = channel.books[0].labels.clone()
    channel.prepare((second,))
    assert torch.equal(channel.books[0].labels, kept)
    other = Rayleigh((32,))
    other.load_state_dict(channel.state_dict())
    other.prepare((second,))
    assert torch.equal(other.books[0].labels, kept)
    assert sorted(kept.tolist()) == list(range(32))


def test_levels_name_what_is_reported() -> None:
    assert Awgn((4,), snr_db=7.0, report_db=(3.0, 12.0, -1.5)).levels() == {
        "": 7.0, ".3db": 3.0, ".12db": 12.0, ".-1.5db": -1.5,
    }  # fmt: skip


def test_products_over_windows_do_not_mix() -> None:
    """A window's result depends on its own noise and codes alone."""
    sent, tables, _ = quantized(30, 3, rows=4)
    channel = Rayleigh((30,), order=64).eval()
    noise = channel.draw(sent)
    whole = channel(sent, tables, level=5.0, noise=noise).hard
    for row in range(4):
        one = Quantized(z=sent.z[row : row + 1], codes=sent.codes[row : row + 1], hard=sent.hard[row : row + 1])
        alone = channel(one, tables, level=5.0, noise=tuple(part[row : row + 1] for part in noise))
        torch.testing.assert_close(alone.hard, whole[row : row + 1])
    assert len(list(itertools.chain(noise))) == 2


@pytest.mark.parametrize(("channel", "level"), [(Bsc((16,)), 6.0), (Bsc((16,)), -0.1), (Awgn((16,)), float("inf"))])
def test_a_level_that_cannot_be_is_an_error(channel: Awgn | Bsc, level: float) -> None:
    sent, tables, _ = quantized(16, 4)
    with pytest.raises(VqtoolError, match="should be from"):
        channel.eval()(sent, tables, level=level)
