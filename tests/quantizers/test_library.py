"""Quantizers in one's own model: layouts, types, the start, the results and the errors."""

from __future__ import annotations

import copy
import warnings
from functools import partial

import pytest
import torch
from torch import nn

import vqtool
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.quantizers import FSQ, LFQ, VQ, Grouped, Gumbel, RandomProjection, Residual, Routed, Soft, Waterfill

SMALL = partial(VQ, codebook_size=16)
ALL = {
    "VQ": SMALL,
    "Residual": partial(Residual, levels=2, of=SMALL),
    "Grouped": partial(Grouped, groups=2, of=SMALL),
    "Routed": partial(Routed, of=[SMALL, SMALL]),
    "Waterfill": partial(Waterfill, levels=2, of=SMALL),
    "FSQ": partial(FSQ, levels=(4, 4)),
    "LFQ": partial(LFQ, bits=4),
    "Gumbel": partial(Gumbel, codebook_size=16),
    "Soft": partial(Soft, codebook_size=16),
    "RandomProjection": partial(RandomProjection, codebook_size=16, code_dim=4),
}
SHAPES = {
    "BTD": (3, 20, 8), "BCL": (3, 8, 20), "BCHW": (3, 8, 4, 5), "BHWC": (3, 4, 5, 8), "BCTHW": (3, 8, 2, 2, 5),
    "ND": (60, 8),
}  # fmt: skip


def test_the_names_are_all_there() -> None:
    import vqtool.quantizers as room

    assert set(ALL) == set(room.__all__)
    assert vqtool.quantizers is room
    with pytest.raises(AttributeError, match="Nothing"):
        _ = room.Nothing


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("layout", SHAPES)
def test_a_layout_is_the_same_tokens_in_another_order(name: str, layout: str) -> None:
    z = torch.randn(SHAPES[layout])
    tokens = z[None] if layout == "ND" else z.movedim(-1 if layout[-1] in "DC" else 1, -1).flatten(1, -2)
    torch.manual_seed(0)
    quantizer = ALL[name](8, layout=layout)
    torch.manual_seed(0)
    plain = ALL[name](8)
    for one, x in ((quantizer, z), (plain, tokens)):
        one.train()(x)
        one.eval()
    value, codes, loss = quantizer(z)
    wanted = plain(tokens)
    assert value.shape == z.shape
    assert codes.shape[:-1] == tuple(
        n for i, n in enumerate(z.shape) if i != (z.dim() - 1 if layout[-1] in "DC" else 1)
    )
    assert torch.equal(codes.reshape(wanted.codes.shape), wanted.codes)
    assert torch.equal(loss, wanted.loss)
    flat = value if layout == "ND" else value.movedim(-1 if layout[-1] in "DC" else 1, -1).flatten(1, -2)
    assert torch.equal(flat.reshape(wanted.z.shape), wanted.z)
    assert torch.equal(quantizer.decode(codes), value)


def test_a_mask_has_the_axes_of_the_tokens() -> None:
    quantizer, z = SMALL(8, layout="BCHW"), torch.randn(2, 8, 4, 5)
    mask = torch.ones(2, 4, 5, dtype=torch.bool)
    mask[:, :, 3:] = False
    codes = quantizer(z, mask).codes
    assert bool((codes[:, :, 3:] == -1).all())
    assert bool((codes[:, :, :3] >= 0).all())


def test_a_mask_of_another_shape_is_one_error() -> None:
    with pytest.raises(VqtoolError, match=r"has the shape \[2, 19\], not \[2, 20\]"):
        SMALL(8)(torch.randn(2, 20, 8), torch.ones(2, 19, dtype=torch.bool))
    with pytest.raises(VqtoolError, match=r"not \[2, 4, 5\]"):
        SMALL(8, layout="BCHW")(torch.randn(2, 8, 4, 5), torch.ones(2, 4, dtype=torch.bool))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_what_comes_out_has_the_type_of_what_goes_in(name: str, dtype: torch.dtype) -> None:
    quantizer, z = ALL[name](8), torch.randn(3, 20, 8)
    quantizer(z)
    assert quantizer(z.to(dtype)).z.dtype == dtype
    wide = copy.deepcopy(quantizer).double()
    assert wide(z.double()).z.dtype == torch.float64
    narrow = copy.deepcopy(quantizer).bfloat16()
    assert narrow(z.bfloat16()).z.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ALL)
def test_it_runs_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        quantizer = ALL[name](8)
    started = ALL[name](8)
    started(torch.randn(3, 20, 8))
    assert started.to("meta")(torch.randn(3, 20, 8, device="meta")).z.shape == (3, 20, 8)
    assert {n: t.shape for n, t in quantizer.state_dict().items()} == {
        n: t.shape for n, t in started.state_dict().items()
    }


def test_it_starts_itself_on_the_first_training_batch_and_never_in_evaluation() -> None:
    z = torch.randn(4, 50, 8)
    for make in (SMALL, ALL["Residual"], ALL["Waterfill"], partial(Residual, of=partial(FSQ, levels=(3,) * 8))):
        quantizer = make(8).eval()
        with pytest.raises(VqtoolError, match="never started"):
            quantizer(z)
        assert "not started" in repr(quantizer)
        used = quantizer.train()(z).codes[..., 0].unique()
        assert len(used) > 8
        assert "not started" not in repr(quantizer)
        twin = make(8)
        twin.load_state_dict(quantizer.state_dict())
        assert torch.equal(twin.eval()(z).codes, quantizer.eval()(z).codes)


def test_few_tokens_for_a_start_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="starts 16 codes from 6 tokens"):
        SMALL(8)(torch.randn(2, 3, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SMALL(8)(torch.randn(2, 30, 8))


@pytest.mark.parametrize(
    ("shape", "layout", "hint"),
    [((2, 8, 20), "BTD", 'layout="BCL"'), ((2, 20, 8), "BCL", 'layout="BTD"'), ((2, 8, 4, 4), "BTD", '"BCHW"'),
     ((2, 20, 7), "BTD", "made for 8 features"), ((20, 8), "BTD", '"ND"')],
)  # fmt: skip
def test_a_wrong_shape_is_one_error_that_names_the_layout(shape: tuple[int, ...], layout: str, hint: str) -> None:
    with pytest.raises(VqtoolError) as error:
        SMALL(8, layout=layout)(torch.randn(shape))
    assert f'layout "{layout}"' in error.value.message
    assert str(list(shape)) in error.value.message
    assert hint in (error.value.hint or "")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: VQ(8, start="k-means"), "start"),
        (lambda: VQ(8, decay=1.5), "decay"),
        (lambda: VQ(8, codebook_size=-4), "codebook_size"),
        (lambda: VQ(8, codebook_size=2.5), "codebook_size"),
        (lambda: VQ(8, layout="BDT"), "layout"),
        (lambda: VQ(8, gradient="diveq"), "trains the codes"),
        (lambda: VQ(8, gradient="nothing"), "nothing"),
        (lambda: VQ(8, code_dim=9), "9 dimensions"),
        (lambda: VQ(8, metric="cosine", code_dim=2), "project"),
        (lambda: Residual(8, levels=0), "levels"),
        (lambda: Residual(8, of=nn.Linear), "Linear"),
        (lambda: Residual(8, of=FSQ, beam=2), "beam"),
        (lambda: Grouped(8, groups=3), "does not divide"),
        (lambda: Routed(8, of=[SMALL]), "two experts"),
        (lambda: FSQ(8, levels=(1, 2)), "at least 2"),
        (lambda: VQ(8, weights={"comitment": 1.0}), "comitment"),
    ],
)
def test_options_are_checked_where_they_are_given(make: object, says: str) -> None:
    with pytest.raises(VqtoolError) as error:
        make()  # type: ignore[operator]
    assert says in error.value.message


def test_the_loss_is_the_weighted_sum_of_the_terms() -> None:
    z = torch.randn(3, 20, 8)
    quantizer = VQ(8, codebook_size=16, codes="learned", weights={"commitment": 0.5})
    result = quantizer(z)
    assert torch.allclose(result.loss, 0.5 * result.terms["commitment"] + result.terms["codebook"])
    assert result.perplexity.shape == (1,)
    assert 1 <= float(result.perplexity) <= 16
    assert float(FSQ(8)(z).loss) == 0


def test_the_repr_says_what_it_is() -> None:
    text = repr(Residual(8, levels=2, of=partial(VQ, codebook_size=16, gradient="rotation")))
    assert "Residual(" in text
    assert "levels=2" in text
    assert "16 x 8, ema, not started" in text
    assert "gradient='rotation'" in text


def test_a_quantizer_is_copied_and_pickled_in_full() -> None:
    import io

    quantizer = Residual(8, levels=2, of=SMALL)
    z = torch.randn(3, 40, 8)
    quantizer(z)
    held = io.BytesIO()
    torch.save(quantizer, held)
    held.seek(0)
    for other in (copy.deepcopy(quantizer), torch.load(held, weights_only=False)):  # our own, written just now
        assert torch.equal(other.eval()(z).codes, quantizer.eval()(z).codes)


@pytest.mark.parametrize("levels", [(4, 4), (8, 5)])
def test_levels_of_fsq_have_scales_that_shrink_with_what_is_left(levels: tuple[int, ...]) -> None:
    z = 5 * torch.randn(8, 100, 2)
    errors = []
    for count in (1, 2, 3):
        quantizer = Residual(2, levels=count, of=partial(FSQ, levels=levels))
        quantizer(z)
        errors.append(float((quantizer.eval()(z).hard - z).square().mean()))
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 2


def test_a_shared_codebook_is_one() -> None:
    quantizer = Residual(8, levels=3, shared=True, of=SMALL)
    z = torch.randn(4, 50, 8)
    result = quantizer(z)
    assert result.codes.shape[-1] == 3
    assert len([n for n, _ in quantizer.named_buffers() if n.endswith("codes")]) == 1
    before = quantizer.vectors()[0].clone()
    quantizer.update(result.stats)
    assert not torch.equal(before, quantizer.vectors()[0])
    assert torch.equal(quantizer.vectors()[0], quantizer.vectors()[2])
    assert float(quantizer.levels[0].codebook.weights.sum()) > 0


def test_sampled_codes_are_near_and_vary_with_the_temperature() -> None:
    z = torch.randn(4, 200, 8)
    nearest = VQ(8, codebook_size=32)
    nearest(z)
    shares = []
    for temperature in (1e-4, 0.05, 1.0):
        sampled = VQ(8, codebook_size=32, sampling=temperature)
        sampled.load_state_dict(nearest.state_dict())
        shares.append(float((sampled(z).codes == nearest(z).codes).float().mean()))
        assert torch.equal(sampled.eval()(z).codes, nearest(z).codes)
    assert shares[0] > 0.98 > shares[1] > shares[2]
    assert shares[1] > 1 / 32


def test_a_mask_of_other_tokens_is_refused_by_the_start_too():
    with pytest.raises(VqtoolError, match=r"the mask of VQ has the shape \[2, 4\], not \[2, 5\]"):
        VQ(4, codebook_size=4).initialise(torch.randn(2, 5, 4), torch.ones(2, 4))


@pytest.mark.parametrize(("make", "options"), [("cosine", {"code_dim": 1}), ("random-projection", {"code_dim": 0})])
def test_a_preset_keeps_its_own_limits(make: str, options: dict[str, int]) -> None:
    with pytest.raises(VqtoolError, match="`code_dim` should be greater than"):
        catalog().load("quantizer", make)(8, **options)


def test_a_preset_refuses_options_that_are_not_its_own() -> None:
    with pytest.raises(TypeError, match="EMA has no option `metric`"):
        catalog().load("quantizer", "ema")(8, metric="cosine")
