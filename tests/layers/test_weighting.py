"""Weighting by the energy around: a piece is weighed as the whole, and the inverse needs nothing but the result."""

from __future__ import annotations

import pytest
import torch

from vqtool.layers.weighting import Weighting


def uneven(moments: int = 120) -> torch.Tensor:
    """Features [1, 24, moments] of 6 bands whose sizes vary by 80 dB."""
    generator = torch.Generator().manual_seed(0)
    size = 10 ** (-4 * torch.rand(1, 6, 1, moments, generator=generator))
    return (torch.randn(1, 6, 4, moments, generator=generator) * size).flatten(1, 2)


def test_a_piece_is_weighed_bit_for_bit_as_the_whole() -> None:
    weighting, x = Weighting(6, 0.6), uneven()
    whole = weighting(x)
    assert torch.equal(weighting(x[..., 39:71])[..., 1:-1], whole[..., 40:70])
    reach = weighting.reach
    back = weighting.inverse(whole[..., 50 - reach : 60 + reach])
    assert torch.equal(back[..., reach:-reach], weighting.inverse(whole)[..., 50:60])


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.6])
def test_the_inverse_finds_what_was_weighed(exponent: float) -> None:
    weighting, x = Weighting(6, exponent), uneven()
    torch.testing.assert_close(weighting.inverse(weighting(x)), x, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("exponent", [0.0, 0.6])
def test_a_tilt_makes_tokens_smaller_band_by_band_and_is_undone(exponent: float) -> None:
    plain, tilted, x = Weighting(6, exponent), Weighting(6, exponent, 20.0), uneven()
    ratio = (plain(x) / tilted(x)).unflatten(1, (6, 4)).log10() * 20
    torch.testing.assert_close(ratio, torch.arange(0, 24, 4.0)[None, :, None, None].expand_as(ratio), atol=1e-4, rtol=0)
    torch.testing.assert_close(tilted.inverse(tilted(x)), x, rtol=1e-4, atol=1e-9)


def test_without_an_exponent_nothing_is_weighed() -> None:
    x = uneven()
    assert torch.equal(Weighting(6, 0.0)(x), x)
