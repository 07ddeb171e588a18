"""The lapped transform: an untrained pair reproduces the signal, tokens see what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqtool.errors import VqtoolError
from vqtool.layers.lapped import mdct
from vqtool.parts.decoders.conv1d import Conv1dDecoder
from vqtool.parts.decoders.lapped import LappedDecoder
from vqtool.parts.encoders.conv1d import Conv1dEncoder
from vqtool.parts.encoders.lapped import LappedEncoder
from vqtool.recipe import load
from vqtool.training.session import try_stages

RECIPES = Path(__file__).parents[2] / "recipes"


@given(st.sampled_from([2, 8, 20]), st.sampled_from([2, 4, 6]))
def test_shifted_mdcts_are_an_orthonormal_basis(hop: int, span: int) -> None:
    basis = mdct(hop, span).double()
    for shift in range(span):
        overlap = basis[:, shift * hop :] @ basis[:, : (span - shift) * hop].T
        wanted = torch.eye(hop, dtype=torch.float64) if shift == 0 else torch.zeros(hop, hop, dtype=torch.float64)
        torch.testing.assert_close(overlap, wanted, atol=1e-6, rtol=0)


@given(st.sampled_from([1, 2, 4]), st.sampled_from([2, 4]), st.integers(1, 2), st.integers(0, 2), st.integers(1, 3))
def test_an_untrained_pair_reproduces_the_signal(bands: int, span: int, channels: int, blocks: int, batch: int) -> None:
    encoder = LappedEncoder(channels, 160, hop=16, span=span, bands=bands, width=8, blocks=blocks, kernel=3)
    decoder = LappedDecoder(encoder.dim, channels, 160, encoder.stride, span=span, bands=bands, width=8, blocks=blocks)
    x = torch.randn(batch, channels, 160)
    z = encoder(x)
    assert z.shape == (batch, 160 // encoder.stride, encoder.dim)
    assert z.shape[1:].numel() == channels * 160  # as many numbers as the signal has
    torch.testing.assert_close(decoder(z)[..., 8:-8], x[..., 8:-8], atol=1e-5, rtol=0)


def test_bands_are_tokens_from_low_to_high() -> None:
    encoder = LappedEncoder(1, 640, hop=32, bands=4)
    for band in range(4):
        tone = torch.sin(torch.pi * (band + 0.5) / 4 * torch.arange(640))[None, None]
        energy = encoder(tone).detach().square().mean(2).view(20, 4)[2:-2].mean(0)
        assert int(energy.argmax()) == band
        assert float(energy.max() / energy.sum()) > 0.9


def test_no_token_sees_beyond_its_reach_and_no_sample_either() -> None:
    torch.manual_seed(0)
    encoder = LappedEncoder(1, 320, hop=16, width=8, blocks=1, kernel=3)
    decoder = LappedDecoder(16, 1, 320, 16, width=8, blocks=1, kernel=3)
    for part in (encoder, decoder):
        for p in part.parameters():
            torch.nn.init.normal_(p, std=0.3)
    x, y = torch.randn(1, 1, 320), torch.randn(1, 1, 320)
    changed = torch.cat([x[..., :160], y[..., 160:]], -1)
    away = (encoder(x) - encoder(changed)).abs().sum(2)[0] > 0
    first = int(away.nonzero()[0])
    assert 160 - (first + 1) * 16 <= encoder.reach
    assert (first + 1) * 16 < 160  # it does see ahead
    z, w = torch.randn(1, 20, 16), torch.randn(1, 20, 16)
    moved = (decoder(z) - decoder(torch.cat([z[:, :10], w[:, 10:]], 1))).abs()[0, 0] > 0
    assert 160 - int(moved.nonzero()[0]) <= decoder.reach * 16


@pytest.mark.parametrize(
    ("option", "value"), [("bands", 20), ("weighting", "none"), ("exponent", 0.3), ("exponent", 0.65), ("tilt", 0.0)]
)
def test_the_check_of_a_recipe_compares_both_ends(option: str, value: object) -> None:
    recipe = load(RECIPES / "codec.toml", [f"decoder.{option}={value}"])
    if value == 0.65:  # as the encoder's
        try_stages(recipe, step=False)
        return
    with pytest.raises(VqtoolError, match=f"the decoder `lapped` has `{option}` = {value}, and the encoder has"):
        try_stages(recipe, step=False)


def test_a_weighting_needs_an_encoder_that_has_it() -> None:
    decoder = LappedDecoder(16, 1, 320, 16, weighting="envelope")
    with pytest.raises(VqtoolError, match="the encoder has none"):
        decoder.check_encoder(Conv1dEncoder(1, 320, dim=16, strides=(16,)))
    LappedDecoder(16, 1, 320, 16, bands=2).check_encoder(Conv1dEncoder(1, 320, dim=16, strides=(16,)))


def test_what_does_not_divide_is_refused() -> None:
    with pytest.raises(VqtoolError, match="not a multiple of the hop"):
        LappedEncoder(1, 100, hop=16)
    with pytest.raises(VqtoolError, match="equal bands"):
        LappedEncoder(1, 160, hop=16, bands=3)
    with pytest.raises(VqtoolError, match="whole number of hops"):
        LappedDecoder(4, 1, 160, 4, bands=4)(torch.randn(1, 6, 4))


@pytest.mark.parametrize("activation", ["gelu", "elu", "snake"])
@pytest.mark.parametrize("weight_norm", [False, True])
def test_a_causal_pair_never_looks_ahead(activation: str, weight_norm: bool) -> None:
    torch.manual_seed(0)
    how = {"width": 6, "causal": True, "activation": activation, "weight_norm": weight_norm}
    encoder = Conv1dEncoder(1, 64, dim=5, strides=(4, 2), **how)
    decoder = Conv1dDecoder(5, 1, 64, 8, output_scale=True, **how)
    for part in (encoder, decoder):
        for p in part.parameters():
            torch.nn.init.normal_(p, std=0.5)
    x, y = torch.randn(1, 1, 64), torch.randn(1, 1, 64)
    changed = torch.cat([x[..., :40], y[..., 40:]], -1)
    a, b = encoder(x), encoder(changed)
    torch.testing.assert_close(a[:, :5], b[:, :5])
    assert not torch.allclose(a[:, 5], b[:, 5])
    first, second = decoder(a), decoder(b)
    torch.testing.assert_close(first[..., :40], second[..., :40])
    assert not torch.allclose(first[..., 40:48], second[..., 40:48])
    free = Conv1dEncoder(1, 64, dim=5, strides=(4, 2), width=6)
    assert not torch.allclose(free(x)[:, 4], free(changed)[:, 4])


def test_weight_norm_starts_where_the_plain_convolution_does_and_scale_scales() -> None:
    x = torch.randn(2, 1, 64)
    pair = []
    for normed in (False, True):
        torch.manual_seed(3)
        pair.append(Conv1dEncoder(1, 64, dim=5, strides=(4, 2), width=6, weight_norm=normed)(x))
    torch.testing.assert_close(*pair)
    decoder = Conv1dDecoder(5, 1, 64, 8, width=6, output_scale=True)
    before = decoder(pair[0])
    with torch.no_grad():
        decoder.scale.fill_(3.0)
    torch.testing.assert_close(decoder(pair[0]), 3 * before)
    with pytest.raises(VqtoolError, match="cannot be causal"):
        Conv1dEncoder(1, 64, padding="circular", causal=True)


WEIGHTED = {"bands": 8, "weighting": "envelope"}


def uneven(rows: int = 2, length: int = 3200) -> torch.Tensor:
    """Noise [rows, 1, length] that grows by 80 dB."""
    return torch.randn(rows, 1, length) * torch.logspace(-4, 0, length)


def test_what_is_weighted_comes_back_at_its_level_and_polarity() -> None:
    encoder = LappedEncoder(1, 3200, hop=32, **WEIGHTED)
    decoder = LappedDecoder(encoder.dim, 1, 3200, encoder.stride, **WEIGHTED)
    x = uneven()
    error = decoder(encoder(x)) - x
    torch.testing.assert_close(error[..., 16:-16], torch.zeros_like(error[..., 16:-16]), atol=1e-5, rtol=0)


def test_weighting_takes_a_share_of_the_range_away_and_errors_follow_the_signal() -> None:
    x = uneven()
    plain, weighted = (LappedEncoder(1, 3200, hop=32, **options) for options in ({"bands": 8}, WEIGHTED))
    decoder = LappedDecoder(weighted.dim, 1, 3200, weighted.stride, **WEIGHTED)

    def range_db(z: torch.Tensor) -> float:
        energy = z.detach().square().mean((0, 2)).view(100, 8).mean(1)
        return float(10 * (energy[85:95].mean() / energy[35:45].mean()).log10())

    assert range_db(weighted(x)) == pytest.approx((1 - 0.6) * range_db(plain(x)), abs=2)
    z = weighted(x)
    error = decoder(z + 0.01 * torch.randn_like(z)) - x
    soft, loud = error[..., 1200:1400].square().mean(), error[..., 2800:3000].square().mean()
    signal = x[..., 2800:3000].square().mean() / x[..., 1200:1400].square().mean()
    assert float((loud / soft).log().detach() / signal.log()) == pytest.approx(0.6, abs=0.1)


def test_the_gradient_of_a_weighted_pair_is_that_of_the_pair() -> None:
    encoder = LappedEncoder(1, 3200, hop=32, **WEIGHTED)
    decoder = LappedDecoder(encoder.dim, 1, 3200, encoder.stride, **WEIGHTED)
    x = uneven().requires_grad_()
    target = torch.randn(2, 1, 3200)
    (decoder(encoder(x)) * target).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad[..., 16:-16], target[..., 16:-16], atol=1e-4, rtol=1e-4)


def test_nothing_is_weighted_beyond_the_reach() -> None:
    encoder, decoder = LappedEncoder(1, 6400, hop=32, **WEIGHTED), LappedDecoder(4, 1, 6400, 4, **WEIGHTED)
    x = uneven(1, 6400)
    changed = torch.cat([x[..., :3200], 0.1 * torch.randn(1, 1, 3200)], -1)
    z, other = encoder(x), encoder(changed)
    assert int((z != other).any(2)[0].nonzero()[0]) // 8 >= 100 - 1 - encoder.reach // 32
    y, w = torch.cat([z[:, :800], z[:, 800:]], 1), torch.cat([z[:, :800], other[:, 800:]], 1)
    first = int((decoder(y) != decoder(w))[0, 0].nonzero()[0])
    assert 3200 - decoder.reach * 32 <= first < 3200 - 32


@pytest.mark.parametrize("z", [torch.zeros(1, 80, 4), 1e4 * torch.randn(1, 80, 4)])
def test_silence_and_codes_of_any_size_are_decoded(z: torch.Tensor) -> None:
    decoder = LappedDecoder(4, 1, 320, 4, **WEIGHTED)
    assert bool(decoder(z).isfinite().all())
