"""Streams: chunks of any size give bit for bit what the whole signal gives, in bounded memory, and clear errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.training.test_masks import PAIRS
from tests.training.tiny import write_recipe
from vqtool.api import Norm
from vqtool.errors import VqtoolError
from vqtool.layers.conv import Continued
from vqtool.model.build import build
from vqtool.model.data import open_data
from vqtool.model.model import Model
from vqtool.model.stream import Begun, framewise
from vqtool.recipe import load

ENCODER = """kind = "conv1d"
dim = 8
width = 8
strides = [2, 4]
blocks = 2
kernel = 7
causal = true
activation = "snake"
weight_norm = true"""
DECODER = """kind = "conv1d"
width = 8
strides = [4, 2]
blocks = 2
kernel = 7
causal = true
weight_norm = true
output_scale = true"""


def built(folder: Path, encoder: str, decoder: str) -> Model:
    """The tiny recipe with these parts, not trained, with weights that are far from zero and data of 8 kHz."""
    path = write_recipe(folder)
    text = path.read_text()
    for role, part in (("encoder", encoder), ("decoder", decoder)):
        start = text.index(f"[{role}]")
        end = text.index("\n[", start)
        text = text[:start] + f"[{role}]\n{part}\n" + text[end:]
    path.write_text(text)
    recipe = load(path)
    model = build(recipe, replace(open_data(recipe).spec, sample_rate=8000))
    torch.manual_seed(0)
    with torch.no_grad():
        for role in ("encoder", "decoder"):
            for parameter in model.parts[role].parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        model.parts.quantizer.initialise(model.parts.encoder(signal(256, 8)))
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return built(tmp_path_factory.mktemp("stream"), ENCODER, DECODER)


def signal(length: int, rows: int = 1) -> Tensor:
    return torch.randn(rows, 1, length, generator=torch.Generator().manual_seed(length))


def cut(value: Tensor, sizes: Sequence[int], axis: int) -> Iterator[Tensor]:
    """`value` in pieces of these sizes along an axis, and what is left in one."""
    at, end = 0, value.shape[axis]
    for size in sizes:
        yield value.narrow(axis, at, min(size, end - at))
        at = min(end, at + size)
    yield value.narrow(axis, at, end - at)


def streamed(model: Model, x: Tensor, chunks: Sequence[int], moments: Sequence[int]) -> tuple[Tensor, Tensor]:
    """All codes and the whole signal, from chunks of these sizes."""
    with model.stream() as stream:
        codes = torch.cat([*(stream.encode(chunk) for chunk in cut(x, chunks, 2)), stream.flush()], 1)
        return codes, torch.cat([stream.decode(some) for some in cut(codes, moments, 1)], 2)


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 30), rows=st.integers(1, 3),
    chunks=st.lists(st.integers(0, 90), max_size=12), moments=st.lists(st.integers(0, 9), max_size=12),
)  # fmt: skip
def test_chunks_of_any_size_are_the_whole_bit_for_bit(
    model: Model, tokens: int, rows: int, chunks: list[int], moments: list[int]
) -> None:
    x = signal(8 * tokens, rows)
    whole = model.encode(x)
    codes, back = streamed(model, x, chunks, moments)
    assert torch.equal(codes, whole["codes"])
    assert torch.equal(back, model.decode(whole))


def test_the_whole_is_what_one_pass_computes(model: Model) -> None:
    x = signal(400, 2)
    _, task = model.task(object)  # type: ignore[misc]  # it has one
    codes = model.encode(x)["codes"]
    with torch.no_grad():
        model.parts.eval()
        coded = task.encode(model.parts, {"x": x})
        at_once = task.decode(model.parts, {"codes": codes, "sent": x.new_zeros(2, 0)}, {})
    assert (coded["codes"] == codes).float().mean() > 0.99  # but for codes that are equally near up to rounding
    torch.testing.assert_close(model.decode(codes), at_once, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("bug", ["forgets", "keeps too little", "keeps the first"])
def test_a_convolution_that_forgets_is_seen(model: Model, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    x = signal(240)
    whole = model.decode(model.encode(x))
    right = Continued.forward

    def wrong(self: Continued, x: Tensor) -> Tensor:
        before = self.past
        result: Tensor = right(self, x)
        assert self.past is not None
        if bug == "forgets":
            self.past = torch.zeros_like(self.past)
        elif bug == "keeps too little":
            self.past = torch.cat([torch.zeros_like(self.past[..., :1]), self.past[..., 1:]], -1)
        elif before is not None:
            self.past = before
        return result

    monkeypatch.setattr(Continued, "forward", wrong)
    _, task = model.task(object)  # type: ignore[misc]  # it has one
    codes = model.encode(x)["codes"]
    with torch.no_grad():
        at_once = task.decode(model.parts, {"codes": codes, "sent": x.new_zeros(1, 0)}, {})
    assert not torch.allclose(model.decode(codes), at_once, rtol=1e-3, atol=1e-5)
    assert whole.shape == at_once.shape


def test_samples_that_get_lost_between_chunks_are_seen(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    x, right = signal(240), Begun.completed_by
    whole = model.encode(x)["codes"]

    def wrong(self: Begun, new: Tensor) -> list[Tensor]:
        frames = right(self, new)
        assert self.held is not None
        self.held = self.held[..., 1:]
        return frames

    monkeypatch.setattr(Begun, "completed_by", wrong)
    codes, _ = streamed(model, x, [33, 50, 21], [])
    assert not torch.equal(codes, whole)


def test_the_latency_is_that_of_a_frame_and_nothing_later_is_waited_for(model: Model) -> None:
    with model.stream(rate=8000) as stream:
        assert (stream.frame, stream.latency_ms) == (8, 1.0)
        assert repr(stream) == "Stream(latency 8 samples, 1 ms at 8000 Hz)"
        x = signal(16)
        assert stream.encode(x[..., :7]).shape == (1, 0, 2)
        codes = stream.encode(x[..., 7:8])
        assert codes.shape == (1, 1, 2)
        assert stream.decode(codes).shape == (1, 1, 8)
        assert stream.flush().shape == (1, 0, 2)
        assert stream.encode(x[..., 8:11]).shape == (1, 0, 2)
        padded = torch.cat([x[..., :11], torch.zeros(1, 1, 5)], -1)
        assert torch.equal(stream.flush(), model.encode(padded)["codes"][:, 1:])


def test_memory_does_not_grow(model: Model) -> None:
    def held(value: object) -> int:
        return sum(t.untyped_storage().nbytes() for m in value.modules() if (t := getattr(m, "past", None)) is not None)  # type: ignore[attr-defined]  # a network

    sizes = []
    with model.stream() as stream:
        for length in (8, 8000, 13):
            stream.decode(stream.encode(signal(length)))
            assert stream.samples.held is not None
            assert stream.samples.held.untyped_storage().nbytes() < 4 * 8
            sizes.append((held(stream.encoder), held(stream.decoder)))
    assert sizes[0] == sizes[1] == sizes[2]


def test_streams_do_not_disturb_each_other_nor_the_model(model: Model) -> None:
    x, y = signal(80), signal(88)
    alone = streamed(model, x, [], [])
    with model.stream() as first, model.stream(levels=1) as second:
        a = [first.encode(x[..., :35]), second.encode(y[..., :51]), first.encode(x[..., 35:])]
        assert torch.equal(torch.cat([a[0], a[2]], 1), alone[0])
        assert a[1].shape[2] == 1
        assert torch.equal(first.decode(alone[0]), alone[1])
    assert model.encode(x)["codes"].shape[2] == 2


def test_what_cannot_be_streamed_is_an_error(model: Model) -> None:
    with pytest.raises(VqtoolError, match="streams at 8000 Hz, not at 44100 Hz"):
        model.stream(rate=44_100)
    with pytest.raises(VqtoolError, match="has 2 levels"):
        model.stream(levels=3)
    with model.stream() as stream:
        with pytest.raises(VqtoolError, match="nothing was encoded"):
            stream.flush()
        for wrong in (torch.zeros(1, 2, 8), torch.zeros(8), torch.zeros(1, 1, 8, dtype=torch.int16)):
            with pytest.raises(VqtoolError, match=r"should be floats \[B, 1, n\]"):
                stream.encode(wrong)
        stream.encode(signal(3, 2))
        with pytest.raises(VqtoolError, match="others before it had"):
            stream.encode(signal(3, 1))
        with pytest.raises(VqtoolError, match="code"):
            stream.decode(torch.full((1, 1, 2), 10_000))
    with pytest.raises(VqtoolError, match="closed"):
        stream.encode(signal(3))


@pytest.mark.parametrize("pair", ["conv1d", "lapped", "resnet1d", "transformer"])
def test_a_model_that_looks_ahead_says_so(tmp_path: Path, pair: str) -> None:
    model = built(tmp_path, *PAIRS[pair])
    with pytest.raises(VqtoolError, match="cannot stream, because of its encoder") as caught:
        model.stream()
    assert {"conv1d": "`causal` is false", "lapped": "samples after its hop"}.get(pair, "no causal form") in str(
        caught.value
    )
    assert model.decode(model.encode(signal(32))).shape == (1, 1, 32)


def test_a_norm_of_whole_windows_cannot_stream_nor_a_model_without_codes(model: Model) -> None:
    class Scale(Norm):
        """A gain for each window."""

    other = replace(model, parts=type(model.parts)(dict(model.parts)))
    other.parts["norm"] = Scale(model.spec)
    with pytest.raises(VqtoolError, match="its norm reads whole windows"):
        other.stream()
    other = replace(model, parts=type(model.parts)({"encoder": model.parts.encoder}))
    with pytest.raises(VqtoolError, match="no encoder and quantizer"):
        other.stream()
    assert framewise(other.parts, model.spec, {"x": signal(8)}, "fp32") is None
