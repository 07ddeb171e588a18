"""The residual codec: any length, tokens that end with the window, and a start that is a plain vector quantizer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqtool.api import Condition, DataSpec, Field, Norm, Parts
from vqtool.errors import VqtoolError
from vqtool.parts.decoders.resnet1d import Resnet1dDecoder
from vqtool.parts.encoders.resnet1d import Resnet1dEncoder
from vqtool.sequence.chain import decode_normed


def codec(channels: int = 1, length: int = 24, factor: int = 4, **options: int) -> Parts:
    torch.manual_seed(0)
    spec = DataSpec({"x": Field((channels, length), "signal")})
    encoder = Resnet1dEncoder(channels, length, factor=factor, **({"dim": 16, "width": 8} | options))
    decoder = Resnet1dDecoder(encoder.dim, channels, length, encoder.stride, width=8)
    return Parts({"norm": Norm(spec), "encoder": encoder, "decoder": decoder})


def stir(parts: Parts) -> Parts:
    for parameter in parts.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return parts


@given(length=st.integers(1, 50), factor=st.sampled_from([1, 2, 4, 8]), channels=st.integers(1, 2))
def test_any_length_comes_back(length: int, factor: int, channels: int) -> None:
    parts = codec(channels, length, factor)
    x = torch.randn(2, channels, length)
    z = parts.encoder(x)
    assert z.shape == (2, -(-length // factor), 16)
    assert decode_normed(parts, z, None).shape == x.shape


@pytest.mark.parametrize("length", [24, 23, 25])
def test_at_the_start_every_sample_passes(length: int) -> None:
    parts = codec(2, length)
    x = torch.randn(3, 2, length)
    torch.testing.assert_close(decode_normed(parts, parts.encoder(x), None), x)


def test_the_last_token_ends_with_the_last_sample() -> None:
    """What is missing is filled up in front: the newest tokens of a window and of its end are the same."""
    encoder = stir(codec()).encoder
    x = torch.randn(1, 1, 64)
    torch.testing.assert_close(encoder(x[..., 1:])[:, 8:], encoder(x)[:, 8:])


def test_a_codec_of_one_length_serves_another() -> None:
    parts = stir(codec(length=24))
    x = torch.randn(2, 1, 40)
    assert parts.decoder(parts.encoder(x)).shape == x.shape


def test_the_stack_learns_and_follows_a_condition() -> None:
    torch.manual_seed(0)
    encoder = Resnet1dEncoder(1, 24, 3, dim=16, width=8)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 1, 24)
    one, other = (encoder(x, Condition(torch.full((2, 3), value))) for value in (0.0, 1.0))
    assert not torch.allclose(one, other, atol=1e-3)


def test_a_factor_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(VqtoolError, match="power of two"):
        Resnet1dEncoder(1, 24, factor=6)
    with pytest.raises(VqtoolError, match="power of two"):
        Resnet1dDecoder(4, 1, 24, 6)
