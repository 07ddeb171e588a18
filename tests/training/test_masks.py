"""The law of masks: what padding holds, and how much there is of it, changes no bit of what a stage computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.training.masked_rows import (
    FILLINGS,
    LENGTHS,
    TOTAL,
    batch_of,
    masked_recipe,
    module_of,
    outcome,
    same_bits,
    terms_of,
)
from tests.training.test_resume import session
from tests.training.tiny import PRIOR
from vqtool.api import DataSpec, Field
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.training.stage import StageModule

PAIRS = {
    "conv1d": ('kind = "conv1d"\ndim = 8\nwidth = 8\nstrides = [4, 2]', 'kind = "conv1d"\nwidth = 8'),
    "causal": (
        'kind = "conv1d"\ndim = 8\nwidth = 8\nstrides = [4, 2]\ncausal = true',
        'kind = "conv1d"\nwidth = 8\ncausal = true',
    ),
    "circular": (
        'kind = "conv1d"\ndim = 8\nwidth = 8\nstrides = [4, 2]\npadding = "circular"',
        'kind = "conv1d"\nwidth = 8\npadding = "circular"',
    ),
    "identity": ('kind = "identity"', 'kind = "identity"'),
    "lapped": (
        'kind = "lapped"\nhop = 8\nbands = 2\nwidth = 8\nblocks = 1',
        'kind = "lapped"\nbands = 2\nwidth = 8\nblocks = 1',
    ),
    "patch": ('kind = "patch"\npatch = 8\nwidth = 8\nblocks = 1', 'kind = "patch"\nwidth = 8\nblocks = 1'),
    "resnet1d": ('kind = "resnet1d"\ndim = 8\nwidth = 8', 'kind = "resnet1d"\nwidth = 8'),
    "filterbank": (
        'kind = "filterbank"\ndim = 8\nwidth = 8\nstride = 8\nhop = 4\nkernel = 8\nbands = 3\nmemory_dim = 4',
        'kind = "conv1d"\nwidth = 8',
    ),
    "transformer": (
        'kind = "transformer"\ndim = 8\nwidth = 16\nheads = 2\npatch = 8',
        'kind = "transformer"\nwidth = 16\nheads = 2',
    ),
}
KNOWN = set(catalog().names("encoder"))
PAIRS = {name: pair for name, pair in PAIRS.items() if pair[0].split('"')[1] in KNOWN}
UNABLE = {"ngrams", "textcnn", "conv2d"}  # a fixed number of tokens a row; images
FAST = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PADDING = {
    "amount": st.integers(0, 40),
    "filling": st.sampled_from(FILLINGS),
    "lengths": st.lists(st.integers(1, TOTAL), min_size=2, max_size=5),
    "front": st.booleans(),
}


def test_every_kind_of_encoder_and_decoder_is_tried() -> None:
    tried = {pair[0].split('"')[1] for pair in PAIRS.values()}
    assert tried | UNABLE == set(catalog().names("encoder"))
    assert {pair[1].split('"')[1] for pair in PAIRS.values()} | {"conv2d"} == set(catalog().names("decoder"))


@pytest.fixture(scope="module", params=PAIRS)
def of_pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StageModule:
    encoder, decoder = PAIRS[request.param]
    folder = tmp_path_factory.mktemp("pair")
    return module_of(masked_recipe(folder, encoder=encoder, decoder=decoder))[1]


@given(**PADDING)
@FAST
def test_no_bit_of_a_step_depends_on_padding(
    of_pair: StageModule, amount: int, filling: float, lengths: list[int], front: bool
) -> None:
    plain = outcome(of_pair, batch_of(lengths))
    assert all(value.isfinite().all() for name, value in plain.items() if name != "samples 0" and name[:7] != "samples")
    if not front:
        same_bits(plain, outcome(of_pair, batch_of(lengths, amount, filling)))
    else:
        before = batch_of(lengths, front=True)
        same_bits(outcome(of_pair, before), outcome(of_pair, batch_of(lengths, amount, filling, front=True)))


def test_a_row_beside_a_longer_one_is_what_it_is_alone(of_pair: StageModule) -> None:
    """Its codes and signal are those of the shorter signal itself, whatever stands beside it."""
    of_pair.eval()
    with torch.no_grad():
        alone = of_pair(batch_of([18]))[2]
        for others in ([32], [25, 11], [19, 32, 32]):
            lengths = [18, *others]
            batch = batch_of(lengths)
            batch["x"][0] = torch.nn.functional.pad(batch_of([18])["x"][0], (0, max(lengths) - 18), value=1e30)
            beside = of_pair(batch)[2]
            tokens = alone["codes"].shape[1]
            assert torch.equal(beside["codes"][0, :tokens], alone["codes"][0])
            assert bool((beside["codes"][0, tokens:] == -1).all())
            assert torch.equal(beside["x_hat"][0, :, :18], alone["x_hat"][0])
            assert not beside["x_hat"][0, :, 18:].any()
    of_pair.freeze()


def test_rows_of_full_length_are_computed_as_without_a_mask(of_pair: StageModule) -> None:
    whole = batch_of([TOTAL] * 4)
    masked = outcome(of_pair, whole)
    plain = outcome(of_pair, {"x": whole["x"]} | {"mask": torch.ones(4, TOTAL, dtype=torch.bool)})
    same_bits(masked, plain)
    with torch.no_grad():
        x_hat = of_pair(whole)[2]["x_hat"]
        unmasked = of_pair.task.step(of_pair.parts, {"x": whole["x"]})["x_hat"]
    assert torch.equal(x_hat, unmasked)


@pytest.mark.parametrize("kind", catalog().names("quantizer"))
def test_no_quantizer_sees_padding(tmp_path: Path, kind: str) -> None:
    recipe = masked_recipe(tmp_path, quantizer=f'kind = "{kind}"')
    recipe.write_text(recipe.read_text().replace("mse = 1.0, commitment = 0.25", terms_of(kind)))
    _, module = module_of(recipe)
    plain = outcome(module, batch_of(LENGTHS))
    for amount, filling in ((0, float("nan")), (9, 1e30), (32, -3.0)):
        same_bits(plain, outcome(module, batch_of(LENGTHS, amount, filling)))


@pytest.mark.parametrize("loss", ["l1", "mse", "relative-error", "stft", "mel"])
def test_a_loss_over_padded_rows_is_that_over_their_real_samples(loss: str) -> None:
    spec = DataSpec({"x": Field((1, TOTAL), "signal")}, sample_rate=1000.0)
    options = {"stft": {"scales": (16, 8)}, "mel": {"scales": (16, 8), "bands": 4}}
    value = catalog().make("loss", loss, options.get(loss, {}), spec)
    batch = batch_of(LENGTHS)
    x, mask = batch["x"], batch["mask"]
    other = (x * 0.9 + 0.1).masked_fill(~mask[:, None], 0)

    def of(x: Tensor, other: Tensor, mask: Tensor | None) -> Tensor:
        names = ("estimate", "x") if loss == "relative-error" else ("x_hat", "target")
        return value(**dict(zip(names, (other, x), strict=True)), mask=mask)

    padded = torch.nn.functional.pad(x, (0, 17)), torch.nn.functional.pad(other, (0, 17))
    assert torch.equal(of(x, other, mask), of(*padded, torch.nn.functional.pad(mask, (0, 17))))
    half = torch.ones(2, 18, dtype=torch.bool)
    torch.testing.assert_close(
        of(x[1:3, :, :18], other[1:3, :, :18], half), of(x[1:3, :, :18], other[1:3, :, :18], None)
    )
    one = torch.cat([x[2:3], x[2:3]]), torch.cat([other[2:3], other[2:3]])
    shown = of(one[0], one[1], mask[[2, 2]])
    torch.testing.assert_close(shown, of(one[0][..., :18], one[1][..., :18], None))


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StageModule]:
    made = {}
    for kind in catalog().names("prior"):
        recipe = masked_recipe(tmp_path_factory.mktemp(f"prior-{kind}"))
        losses = "next-code = 1.0, latent = 0.1"
        more = PRIOR.replace('"gru"', f'"{kind}"').replace("next-code = 1.0", losses)
        recipe.write_text(recipe.read_text() + more)
        made[kind] = module_of(recipe, "prior")[1]
    return made


@pytest.mark.parametrize("kind", catalog().names("prior"))
@given(**{name: strategy for name, strategy in PADDING.items() if name != "front"}, share=st.sampled_from([0.0, 0.5]))
@settings(parent=FAST, max_examples=3)
def test_no_prior_sees_padding(
    prior: dict[str, StageModule], kind: str, amount: int, filling: float, lengths: list[int], share: float
) -> None:
    module = prior[kind]
    module.task.own_tokens = share
    plain = outcome(module, batch_of(lengths))
    same_bits(plain, outcome(module, batch_of(lengths, amount, filling)))
    tokens = -(-torch.tensor(lengths) // 8)
    assert torch.equal((plain["codes"] >= 0).all(2).sum(1), tokens)


CONTRAST = """
[context]
kind = "{context}"
width = 16
layers = 2
heads = 2
{more}

[[stage]]
name = "contrast"
task = "contrast"
steps = 3
options = {{ span = 1, hide = "{hide}" }}
losses = {{ info-nce = 1.0 }}
"""


def without_decoder(text: str) -> str:
    """A recipe of a task that decodes nothing."""
    return text[: text.index("[decoder]")] + text[text.index("[train]") :]


@pytest.mark.parametrize("context", catalog().names("context"))
@pytest.mark.parametrize("hide", ["features", "signal"])
def test_no_context_network_sees_padding(tmp_path: Path, context: str, hide: str) -> None:
    recipe = masked_recipe(tmp_path, quantizer='kind = "product-gumbel"\ngroups = 2\ncodebook_size = 8')
    text = without_decoder(recipe.read_text())
    more = "groups = 2" if context == "transformer" else ""
    recipe.write_text(text[: text.index("[[stage]]")] + CONTRAST.format(context=context, hide=hide, more=more))
    _, module = module_of(recipe, "contrast")
    plain = outcome(module, batch_of(LENGTHS))
    assert float(plain["info-nce"]) > 0
    for amount, filling in ((0, float("nan")), (9, 1e30), (32, -3.0)):
        same_bits(plain, outcome(module, batch_of(LENGTHS, amount, filling)))


class Standardised(nn.Module):
    """Statistics of a whole row, as a normalisation over time has them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.dim, self.stride, self.bands = inner.dim, inner.stride, inner.bands

    def forward(self, x: Tensor, condition: object = None) -> Tensor:
        return self.inner((x - x.mean((1, 2), keepdim=True)) / x.std((1, 2), keepdim=True), condition)


def test_a_part_that_looks_along_the_whole_row_sees_the_row_alone(tmp_path: Path) -> None:
    model, module = module_of(masked_recipe(tmp_path))
    model.parts["encoder"] = Standardised(model.parts.encoder)
    same_bits(outcome(module, batch_of(LENGTHS)), outcome(module, batch_of(LENGTHS, 12, 1e30)))


def test_what_cannot_take_shorter_rows_is_an_error_before_training(tmp_path: Path) -> None:
    ngrams = masked_recipe(tmp_path, encoder='kind = "ngrams"\ntokens = 4\ndim = 8\nbuckets = 64')
    with pytest.raises(VqtoolError, match="the encoder `ngrams` takes rows of 32 samples only"):
        module_of(ngrams)
    direct = masked_recipe(tmp_path)
    text = without_decoder(direct.read_text()).replace('task = "autoencode"', 'task = "classify"')
    direct.write_text(text + '\n[classifier]\nkind = "linear"\n')
    with pytest.raises(VqtoolError, match="the task `classify` takes rows of one length"):
        module_of(direct)
    hinge = masked_recipe(tmp_path)
    text = hinge.read_text().replace("mse = 1.0,", "mse = 1.0, hinge = 1.0,")
    hinge.write_text(
        text.replace("[train]", '[discriminator]\nkind = "multi-period"\nperiods = [2]\nlayers = 1\n\n[train]')
    )
    with pytest.raises(VqtoolError, match="loss `hinge` reads a discriminator, which takes rows of one length"):
        module_of(hinge)


def test_a_loss_that_knows_no_mask_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqtool.parts.losses.mse import Mse

    def forward(self: Mse, *, x_hat: Tensor, target: Tensor) -> Tensor:
        return (x_hat - target).square().mean()

    monkeypatch.setattr(Mse, "forward", forward)
    with pytest.raises(VqtoolError, match="loss `mse` reads `target` without a `mask`"):
        module_of(masked_recipe(tmp_path))


@pytest.mark.parametrize(("more", "others"), [("", [(8, 1e9), (24, 0.0)]), (PRIOR, [(0, 1e9)])])
def test_a_run_depends_on_what_is_real_alone(tmp_path: Path, more: str, others: list[tuple[int, float]]) -> None:
    """Training, validation, code statistics, evaluation and checkpoints, with other padding in the file.

    The length of the file's rows is that of the prior's table of places, so it is the same there.
    """
    runs = []
    for amount, filling in ((0, np.nan), *others):
        folder = tmp_path / f"{amount} {filling}"
        folder.mkdir()
        recipe = masked_recipe(folder)
        recipe.write_text(recipe.read_text() + more)
        held = np.load(folder / "signals.npz")
        mask = np.pad(held["mask"], ((0, 0), (0, amount)))
        x = np.where(mask, np.pad(held["x"], ((0, 0), (0, amount))), filling)
        np.savez(folder / "signals.npz", x=x, mask=mask)
        sizes = ["stage.tokenizer.steps=6", "train.batch=10", *(["stage.prior.steps=4"] if more else [])]
        made = session(recipe, folder / "run", sizes)
        assert made.train() == 0
        runs.append((made.finish(seconds=0.0), made.model.seen))
    kept = [json.dumps(summary["splits"], sort_keys=True) for summary, _ in runs]
    for (_, seen), splits in zip(runs[1:], kept[1:], strict=True):
        assert splits == kept[0]
        same_bits(runs[0][1].tensors, seen.tensors)
        assert seen.row == runs[0][1].row
    scores = runs[0][0]["splits"]["test"]["model"]
    real = sum(-(-length // 8) for length in np.resize(LENGTHS, 120)[_test_rows()])
    assert scores["codes.tokens"] == 2 * real


def _test_rows() -> list[int]:
    return torch.randperm(120, generator=torch.Generator().manual_seed(0))[:24].tolist()
