"""Transformer encoders and decoders: sizes, positions, masks, conditions, and that a short training teaches them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqtool.api import Condition, UnfitError
from vqtool.errors import VqtoolError
from vqtool.layers.attention import KeyValues, SelfAttention, rotary_angles
from vqtool.layers.patches import from_patches, to_patches
from vqtool.layers.token_transformer import TokenTransformer
from vqtool.parts.decoders.transformer import TransformerDecoder
from vqtool.parts.encoders.transformer import TransformerEncoder
from vqtool.recipe import load
from vqtool.training.session import try_stages

RECIPES = Path(__file__).parents[2] / "recipes"

SMALL = {"width": 16, "layers": 2, "heads": 2}
POSITIONS = ["rotary", "circular", "learned"]


def wild(part: torch.nn.Module) -> torch.nn.Module:
    """The part with all its parameters drawn anew, those too that start at zero."""
    torch.manual_seed(0)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return part.eval()


@given(
    st.booleans(),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(["rotary", "learned"]),
)
def test_a_token_per_patch_and_back(window: bool, tokens: int, patch: int, channels: int, positions: str) -> None:
    extent = tokens * patch if window else (tokens * patch, 2 * patch)
    encoder = TransformerEncoder(channels, extent, patch=patch, dim=5, positions=positions, **SMALL)
    shape = (2, channels, *((extent,) if isinstance(extent, int) else extent))
    z = encoder(torch.randn(shape))
    size = patch if window else patch**2
    assert encoder.stride == size
    assert z.shape == (2, tokens * (1 if window else 2), 5)
    decoder = TransformerDecoder(5, channels, extent, encoder.stride, positions=positions, **SMALL)
    assert decoder(z).shape == shape
    assert torch.equal(encoder(torch.ones(shape)), encoder(torch.ones(shape)))


@pytest.mark.parametrize("shape", [(2, 3, 12), (2, 3, 8, 12)])
def test_patches_come_back_as_they_were(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    patches, grid = to_patches(x, 4)
    assert torch.equal(from_patches(patches, 4, grid), x)
    if len(shape) == 4:  # row after row; channels first within a patch
        assert torch.equal(patches[:, 3 + 1], x[:, :, 4:8, 4:8].flatten(1))
    else:
        assert torch.equal(patches[:, 1], x[:, :, 4:8].flatten(1))


@pytest.mark.parametrize("extent", [16, (8, 8)])
def test_gradient_reaches_every_weight(extent: int | tuple[int, int]) -> None:
    encoder = TransformerEncoder(1, extent, 3, patch=4, dim=5, positions="learned", **SMALL)
    decoder = TransformerDecoder(5, 1, extent, encoder.stride, 3, **SMALL)
    parts = wild(torch.nn.ModuleList([encoder, decoder]))
    condition = Condition(torch.randn(2, 3))
    side = (extent,) if isinstance(extent, int) else extent
    decoder(encoder(torch.randn(2, 1, *side), condition), condition).square().sum().backward()
    silent = [name for name, p in parts.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not silent


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("positions", POSITIONS)
def test_the_dtype_is_kept(positions: str, dtype: torch.dtype) -> None:
    encoder = TransformerEncoder(1, 16, 3, patch=4, dim=5, positions=positions, **SMALL).to(dtype)
    decoder = TransformerDecoder(5, 1, 16, 4, 3, positions=positions, **SMALL).to(dtype)
    condition = Condition(torch.randn(2, 3, dtype=dtype))
    z = encoder(torch.randn(2, 1, 16, dtype=dtype), condition)
    assert z.dtype == dtype
    assert decoder(z, condition).dtype == dtype


@pytest.mark.parametrize("positions", ["rotary", "circular"])
def test_rotary_positions_hold_for_other_lengths(positions: str) -> None:
    encoder = wild(TransformerEncoder(1, 16, patch=4, dim=5, positions=positions, **SMALL))
    decoder = wild(TransformerDecoder(5, 1, 16, 4, positions=positions, **SMALL))
    assert encoder(torch.randn(2, 1, 64)).shape == (2, 16, 5)
    assert encoder(torch.randn(2, 1, 18)).shape == (2, 5, 5)
    assert decoder(torch.randn(2, 9, 5)).shape == (2, 1, 36)


@pytest.mark.parametrize("extent", [16, (8, 8)])
def test_it_starts_as_plain_patches(extent: int | tuple[int, int]) -> None:
    encoder = TransformerEncoder(1, extent, patch=4, dim=24, **SMALL)
    decoder = TransformerDecoder(24, 1, extent, encoder.stride, **SMALL)
    x = torch.randn(2, 1, *((extent,) if isinstance(extent, int) else extent))
    assert torch.equal(encoder(x)[..., : encoder.stride], to_patches(x, 4)[0])
    torch.testing.assert_close(decoder(encoder(x)), x)


def test_images_of_another_size_have_their_own_grid() -> None:
    encoder = wild(TransformerEncoder(1, (8, 8), patch=4, dim=5, **SMALL))
    x = torch.randn(1, 1, 4, 16)
    assert encoder(x).shape == (1, 4, 5)
    assert not torch.allclose(encoder(x), encoder(from_patches(to_patches(x, 4)[0], 4, (2, 2))), atol=1e-3)


def test_learned_positions_hold_for_the_lengths_of_training() -> None:
    encoder = TransformerEncoder(1, 16, patch=4, dim=5, positions="learned", **SMALL)
    assert encoder(torch.randn(1, 1, 8)).shape == (1, 2, 5)
    with pytest.raises(VqtoolError, match="takes no 5 tokens: its learned positions are for 4"):
        encoder(torch.randn(1, 1, 20))
    decoder = TransformerDecoder(5, 1, (8, 8), 16, **SMALL)
    with pytest.raises(VqtoolError, match="3 tokens are not an image of 2 x 2 patches"):
        decoder(torch.randn(1, 3, 5))


@given(st.integers(1, 7))
def test_a_rotated_period_gives_rotated_tokens(tokens: int) -> None:
    encoder = wild(TransformerEncoder(1, 32, patch=4, dim=5, positions="circular", **SMALL))
    x = torch.randn(2, 1, 32)
    torch.testing.assert_close(encoder(x.roll(4 * tokens, -1)), encoder(x).roll(tokens, 1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
def test_tokens_know_their_places(positions: str) -> None:
    encoder = wild(TransformerEncoder(1, 32, patch=4, dim=5, positions=positions, **SMALL))
    x = torch.randn(1, 1, 32)
    swapped = x.unflatten(2, (8, 4))[:, :, [0, 5, 2, 3, 4, 1, 6, 7]].flatten(2)
    assert not torch.allclose(encoder(x)[:, 0], encoder(swapped)[:, 0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("axes", [1, 2])
def test_rotary_positions_are_relative(axes: int) -> None:
    attend = wild(SelfAttention(16, 2, causal=False))
    x, places = torch.randn(1, 6, 16), torch.randint(0, 9, (6, axes))
    here, there = (attend(x, angles=rotary_angles(places + away, 8)) for away in (0, 7))
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_masked_tokens_reach_no_other(causal: bool) -> None:
    attend = wild(SelfAttention(16, 2, causal=causal))
    x, noise = torch.randn(2, 2, 6, 16)
    mask = torch.tensor([[True] * 4 + [False] * 2, [False] * 2 + [True] * 4])
    changed = torch.where(mask[..., None], x, noise)
    torch.testing.assert_close(attend(changed, mask=mask)[mask], attend(x, mask=mask)[mask], rtol=0, atol=0)
    torch.testing.assert_close(attend(changed, mask=mask)[0, :4], attend(x[:1, :4])[0], rtol=1e-4, atol=1e-5)
    assert bool(attend(changed, mask=torch.zeros_like(mask)).isfinite().all())


def test_causal_tokens_see_no_later_one() -> None:
    encoder = wild(TransformerEncoder(1, 32, patch=4, dim=5, causal=True, **SMALL))
    decoder = wild(TransformerDecoder(5, 1, 32, 4, causal=True, **SMALL))
    x = torch.randn(1, 1, 32)
    later = torch.cat([x[..., :20], torch.randn(1, 1, 12)], -1)
    first, second = encoder(x), encoder(later)
    torch.testing.assert_close(first[:, :5], second[:, :5])
    assert not torch.allclose(first[:, 5], second[:, 5], atol=1e-3)
    torch.testing.assert_close(decoder(first)[..., :20], decoder(second)[..., :20])


def test_open_tokens_see_all_others() -> None:
    encoder = wild(TransformerEncoder(1, 32, patch=4, dim=5, **SMALL))
    x = torch.randn(1, 1, 32)
    changed = torch.cat([x[..., :28], torch.randn(1, 1, 4)], -1)
    assert bool((encoder(x) != encoder(changed)).any(-1).all())


def test_a_block_with_a_past_agrees_with_one_pass() -> None:
    attend = SelfAttention(16, 2, 0.0).eval()
    x, angles, past = torch.randn(2, 6, 16), torch.randn(6, 4), KeyValues(6)
    with torch.no_grad():
        steps = [attend(x[:, at : at + 2], past, angles=angles[at : at + 2]) for at in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(steps, 1), attend(x, angles=angles), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_condition_modulates_once_it_is_learned(part: str) -> None:
    made = (
        TransformerEncoder(1, 16, 3, patch=4, dim=5, **SMALL)
        if part == "encoder"
        else TransformerDecoder(5, 1, 16, 4, 3, **SMALL)
    )
    x = torch.randn(1, 1, 16) if part == "encoder" else torch.randn(1, 4, 5)
    one, other = Condition(torch.zeros(1, 3)), Condition(torch.ones(1, 3))
    assert torch.equal(made(x, one), made(x, other))  # at first it has no effect
    wild(made)
    assert not torch.allclose(made(x, one), made(x, other), atol=1e-3)


@pytest.mark.parametrize(
    ("extent", "more", "message"),
    [
        (30, {}, "a window of 30 samples is not a multiple of the patch of 4"),
        ((28, 30), {}, "an image of 28 x 30 pixels is not a multiple of the patch of 4 x 4"),
        (32, {"heads": 3}, "`heads` = 3 does not divide `width` = 16"),
        (32, {"heads": 16}, "a head of 1 features has no pairs"),
        ((8, 8), {"heads": 8}, "a head of 2 features has no pairs to turn by rotary positions along two axes"),
        ((8, 8), {"positions": "circular"}, "circular positions"),
        (32, {"positions": "circular", "causal": True}, "circular positions"),
    ],
)
def test_what_cannot_be_is_refused_early(extent: int | tuple[int, int], more: dict[str, object], message: str) -> None:
    with pytest.raises(VqtoolError, match=message):
        TransformerEncoder(1, extent, patch=4, dim=5, **(SMALL | more))


@pytest.mark.parametrize(
    ("extent", "patch", "near"),
    [(30, 4, "a window of 32 samples"), (30, 100, "a window of 100 samples"), ((28, 30), 8, "an image of 32 x 32")],
)
def test_the_nearest_size_that_fits_is_named(extent: int | tuple[int, int], patch: int, near: str) -> None:
    with pytest.raises(VqtoolError) as raised:
        TransformerEncoder(1, extent, patch=patch, **SMALL)
    assert near in str(raised.value.hint)


def test_signals_of_three_axes_and_tokens_that_are_no_squares_are_refused() -> None:
    with pytest.raises(UnfitError, match="not of 3 axes"):
        TransformerEncoder(1, (8, 8, 8), patch=4, **SMALL)
    with pytest.raises(VqtoolError, match="tokens of 8 pixels are not square patches"):
        TransformerDecoder(5, 1, (8, 8), 8, **SMALL)


@pytest.mark.parametrize("extent", [32, (8, 8)])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_short_training_teaches_more_than_none(extent: int | tuple[int, int], positions: str) -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(1, extent, patch=4, dim=2, positions=positions, **SMALL)
    decoder = TransformerDecoder(2, 1, extent, encoder.stride, positions=positions, **SMALL)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)

    def error(seed: int) -> Tensor:
        phase = 6.3 * torch.rand(32, 1, generator=torch.Generator().manual_seed(seed))
        size = extent if isinstance(extent, int) else extent[0] * extent[1]
        x = (phase + torch.linspace(0, 12, size)).sin()
        x = x[:, None] if isinstance(extent, int) else x.view(-1, 1, *extent)
        return (decoder(encoder(x)) - x).square().mean()

    before = float(error(10_000).detach())
    for step in range(60):
        optimizer.zero_grad()
        error(step).backward()
        optimizer.step()
    assert float(error(10_000).detach()) < 0.5 * before


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        (
            "voltage",
            ["encoder={ kind = 'transformer', patch = 8, positions = 'circular' }", "decoder={ kind = 'transformer' }"],
        ),
        ("seismic-tiny", ["encoder={ kind = 'transformer', patch = 32, layers = 1 }"]),
        ("images", ["encoder={ kind = 'transformer', patch = 4 }", "decoder={ kind = 'transformer' }"]),
    ],
)
def test_recipes_take_them(recipe: str, parts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, forward = set(), TokenTransformer.forward

    def noted(self: TokenTransformer, *args: Tensor, **options: object) -> Tensor:
        sizes.add(self.own.weight.shape)
        return forward(self, *args, **options)

    monkeypatch.setattr(TokenTransformer, "forward", noted)
    try_stages(load(RECIPES / f"{recipe}.toml", parts), step=True)
    assert len(sizes) == len(parts)  # those of encoder and decoder differ


@pytest.mark.parametrize(("part", "option"), [("encoder", "patch = 4, heads = 3"), ("decoder", "heads = 3")])
def test_an_error_says_which_part_it_is_of(part: str, option: str) -> None:
    recipe = load(RECIPES / "images.toml", [f"{part}={{ kind = 'transformer', {option} }}"])
    with pytest.raises(VqtoolError, match="`heads` = 3 does not divide") as raised:
        try_stages(recipe, step=True)
    assert raised.value.where == f"[{part}]"
