"""Links with error correction: what it costs and corrects on every channel, both paths, and the two ends apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.semcom.test_channels import quantized
from tests.semcom.test_classify import RECIPE, built
from tests.semcom.test_mixture import mixture
from vqtool.api import Quantized, Received
from vqtool.errors import VqtoolError
from vqtool_semcom import convolutional
from vqtool_semcom.channels.awgn import Awgn
from vqtool_semcom.channels.bsc import Bsc
from vqtool_semcom.channels.ofdm import Ofdm
from vqtool_semcom.channels.rayleigh import Rayleigh
from vqtool_semcom.convolutional import places

CODED = {"fec": "convolutional", "labels": "identity"}
CHANNELS: tuple[tuple[type, dict[str, Any]], ...] = (
    (Awgn, {"order": 64}),
    (Rayleigh, {}),
    (Rayleigh, {"csi": "pilots", "block": 8}),
    (Ofdm, {}),
    (Bsc, {}),
)


def clean(kind: type) -> float:
    """A level without errors."""
    return 0.0 if kind is Bsc else 140.0


@pytest.mark.parametrize("rate", ["1/2", "2/3", "3/4"])
@pytest.mark.parametrize(("kind", "options"), CHANNELS)
def test_coded_bits_arrive_and_are_counted(kind: type, options: dict, rate: str) -> None:
    """16 tokens of 7 bits and the 6 zeros are 118 bits, that is 236, 177 or 158 coded ones."""
    sent, tables, _ = quantized(100, 16)
    channel = kind((100,), **options, **CODED, code_rate=rate).eval()
    received = channel(sent, tables, level=clean(kind))
    coded = {"1/2": 236, "2/3": 177, "3/4": 158}[rate]
    assert torch.equal(received.codes, sent.codes)
    torch.testing.assert_close(received.hard, sent.hard, atol=1e-4, rtol=1e-4)
    assert received.figures["bits"].tolist() == [coded] * 6
    assert received.trace["bits"].shape == received.trace["llr"].shape == (6, coded)
    assert received.figures["symbols"][0] == channel.symbols_of(112)
    if kind is Awgn:
        assert received.figures["symbols"][0] == -(-coded // 6)
        assert received.trace["symbols"].shape == (6, -(-coded // 6), 2)
    assert float(received.figures["ber.decoded"].max()) == 0


@pytest.mark.parametrize(("kind", "options", "level"), [
    (Awgn, {"order": 4}, 3.0), (Awgn, {"order": 16}, 9.0), (Rayleigh, {"order": 4}, 8.0), (Ofdm, {"order": 4}, 10.0),
    (Rayleigh, {"order": 4, "block": 4}, 9.0), (Bsc, {}, 0.05),
])  # fmt: skip
def test_it_corrects_errors_on_every_channel(kind: type, options: dict, level: float) -> None:
    """The errors of the bits sent are as many as theory says, and less than a tenth of them is left after decoding.

    Not under OFDM, where four taps fade once for all of a window: no code of one window brings a lost one back.
    """
    torch.manual_seed(0)
    sent, tables, _ = quantized(256, 16, rows=1500 if kind is Ofdm else 400)
    figures = kind((256,), **options, **CODED).eval()(sent, tables, level=level).figures
    raw, left = float(figures["ber"].mean()), float(figures["ber.decoded"].mean())
    assert raw == pytest.approx(float(figures["ber.theory"][0]), rel=0.1)
    assert raw > 0.02
    assert left < (0.35 if kind is Ofdm else 0.1) * raw


def test_below_its_threshold_it_makes_things_worse() -> None:
    """What makes a code no gain for a link at low SNR: it must not be hidden."""
    torch.manual_seed(0)
    sent, tables, _ = quantized(256, 16, rows=200)
    figures = Awgn((256,), **CODED).eval()(sent, tables, level=0.0).figures
    assert float(figures["ber.decoded"].mean()) > float(figures["ber"].mean())


def test_the_order_sent_serves_a_fade(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16 symbols fade together: neighbours in the code that are sent side by side would be lost together."""

    def left() -> float:
        torch.manual_seed(0)
        sent, tables, _ = quantized(256, 16, rows=800)
        channel = Rayleigh((256,), order=4, block=16, **CODED).eval()
        return float(channel(sent, tables, level=9.0).figures["ber.decoded"].mean())

    mixed = left()
    monkeypatch.setattr(convolutional, "places", lambda rate, bits: tuple(sorted(places(rate, bits))))
    assert mixed < 0.8 * left()


@pytest.mark.parametrize(("kind", "options"), CHANNELS)
def test_certain_probabilities_take_the_hard_path(kind: type, options: dict) -> None:
    sent, tables, _ = quantized(20, 5)
    probs = torch.nn.functional.one_hot(sent.codes, 20).float()
    channel = kind((20,), **options, **CODED).eval()
    received = channel(Quantized(z=sent.z, codes=sent.codes, hard=sent.hard, probs=probs), tables)
    assert torch.equal(received.soft, received.hard)
    assert all(torch.equal(soft, hard) for soft, hard in received.stages.values())
    assert received.stages["bits"][1].shape == (6, 62)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", [Awgn, Bsc])
def test_the_gradient_goes_through_code_and_decoder(kind: type, share: float) -> None:
    sent, tables, scores = quantized(16, 4)
    channel = kind((16,), hard=share, gradient="link", **CODED).train()
    received = channel(sent, tables, level=0.1 if kind is Bsc else 5.0)
    if share == 1:
        torch.testing.assert_close(received.z, received.hard, atol=1e-5, rtol=1e-4)
    if share == 0:
        torch.testing.assert_close(received.z, received.soft)
    received.z.square().sum().backward()
    assert scores.grad.isfinite().all()
    assert float(scores.grad.abs().max()) > 0


@pytest.mark.parametrize(("kind", "options"), CHANNELS)
def test_both_ends_apart_are_the_whole(kind: type, options: dict) -> None:
    """What is observed on the channel gives the same vectors in each form; what is sent arrives as coded bits."""
    sent, tables, _ = quantized(64, 8, books=2)
    channel = kind((64, 64), send_levels=1, **options, **CODED).eval()
    out = channel.send(sent)
    coded = 2 * (8 * 6 + 6)
    assert out["bits"].shape == (6, coded)
    wanted = tables[0][sent.codes[..., 0]]
    torch.testing.assert_close(channel.receive({"llr": 60 * (2 * out["bits"] - 1)}, tables, 8), wanted, atol=1e-4,
                               rtol=1e-4)  # fmt: skip
    with pytest.raises(VqtoolError, match=rf"shape \[B, {coded}\], not \[6, 48\]"):
        channel.receive({"llr": torch.zeros(6, 48)}, tables, 8)
    heard: Received | None = None

    def kept(*given: Any, **named: Any) -> Received:
        nonlocal heard
        heard = type(channel).forward(channel, *given, **named)
        return heard

    channel.forward = kept
    forms = channel.observe(sent, tables)
    assert len(forms) == len(channel.arrivals)
    assert heard is not None
    for form in forms:
        torch.testing.assert_close(channel.receive(form, tables, 8), heard.hard, atol=1e-3, rtol=1e-3)


def test_what_does_not_go_together_is_one_error() -> None:
    with pytest.raises(VqtoolError, match="`protect` has no meaning with `fec`"):
        Awgn((16,), protect=True, **CODED)
    sent, tables, _ = quantized(16, 4, books=2)
    with pytest.raises(VqtoolError, match="all levels are one word"):
        next(iter(Awgn((16, 16), **CODED).eval().rounds(sent, tables, None, None)))


@pytest.fixture
def recipe(pictures: Callable[..., Path]) -> Path:
    path = pictures().parent / "link.toml"
    path.write_text(RECIPE)
    return path


def step(recipe: Path, *overrides: str) -> tuple[Mapping[str, Tensor], Any]:
    """The figures of a training step, which has to move the encoder."""
    model, batch = built(recipe, *overrides)
    task = model.tasks["link"]
    task.begin(model.parts)
    outputs = task.step(model.parts.train(), batch)
    outputs["logits"].square().sum().backward()
    assert float(next(model.parts.encoder.parameters()).grad.abs().max()) > 0
    return outputs["received"].figures, model


def test_a_model_is_trained_over_a_coded_link(recipe: Path) -> None:
    figures, _ = step(recipe, "channel.fec=convolutional", "channel.code_rate=3/4")
    assert set(figures["bits"].tolist()) == {35}  # (20 + 6) * 4 / 3, and what the last pattern has begun


def test_a_coded_link_may_route(recipe: Path) -> None:
    """Of the chosen codebook the coded bits, on the chosen constellation, and the header; the expected ones as well."""
    recipe.write_text(mixture())
    figures, model = step(recipe, "channel.fec=convolutional")
    plain, _ = step(recipe)
    assert (figures["bits"] == 2 * (plain["bits"] + 6)).all()
    assert (figures["symbols.expected"] > 2 * plain["symbols.expected"]).all()
    assert "ber.decoded" in figures
    assert model.parts.channel.fec.corrects
