"""What a loaded model does: tensors in, tensors out, and one clear error where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vqtool
from tests.training.test_resume import session
from tests.training.tiny import write_recipe
from vqtool.errors import VqtoolError
from vqtool.model.model import Model

SHORT = ["stage.tokenizer.steps=4", "stage.prior.steps=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    assert session(write_recipe(folder, prior=True), folder / "run", SHORT).train() == 0
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return vqtool.load(run)


def signals(rows: int) -> torch.Tensor:
    return torch.randn(rows, 1, 32, generator=torch.Generator().manual_seed(0))


def test_signals_to_codes_and_back(model: Model) -> None:
    x = signals(5)
    coded = model.encode(x)
    assert (coded["codes"].shape, coded["sent"].shape) == ((5, 4, 2), (5, 0))
    y = model.decode(coded)
    assert (y.shape, y.requires_grad) == ((5, 1, 32), False)
    assert torch.equal(model.decode(coded["codes"]), y)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_row_does_not_depend_on_the_others(model: Model, rows: int) -> None:
    x = signals(7)
    whole, some = model.encode(x)["codes"], model.encode(x[:rows])["codes"]
    assert torch.equal(some, whole[:rows])
    torch.testing.assert_close(model.decode(some), model.decode(whole)[:rows])


def test_the_first_levels_are_codes_too(model: Model) -> None:
    codes = model.encode(signals(3), levels=1)["codes"]
    assert codes.shape == (3, 4, 1)
    assert model.decode(codes).shape == (3, 1, 32)
    with pytest.raises(VqtoolError, match="the model's quantizer has 2 levels"):
        model.encode(signals(3), levels=3)


def test_parts_in_training_mode_are_used_in_evaluation_mode_and_left_as_they_were(model: Model) -> None:
    model.parts.train()
    model.parts.encoder.eval()
    before = model.encode(signals(2))["codes"]
    assert model.parts.training
    assert not model.parts.encoder.training
    model.parts.eval()
    assert torch.equal(model.encode(signals(2))["codes"], before)


def test_a_signal_may_be_longer_than_those_of_training(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec takes a whole clip, whatever the length of a training window; but nothing is cut off."""
    x = torch.randn(2, 1, 64)
    coded = model.encode(x)
    assert coded["codes"].shape[1] == 2 * model.encode(signals(1))["codes"].shape[1]
    assert model.decode(coded).shape == x.shape
    with pytest.raises(VqtoolError, match="does not take 33 samples of `x`") as caught:
        model.encode(torch.randn(1, 1, 33))
    fitting = int(str(caught.value.hint).split()[-2])
    assert model.decode(model.encode(torch.randn(1, 1, fitting))).shape == (1, 1, fitting)
    monkeypatch.setattr(model.parts.encoder, "forward", lambda x, *_: x @ torch.eye(32))  # of one length only
    with pytest.raises(VqtoolError, match="this model cannot take 64 samples of `x`"):
        model.encode(x)


def test_arrays_serve_as_tensors_do(model: Model) -> None:
    x = signals(2)
    coded = model.encode(x)
    again = model.encode(x.double().numpy())
    assert torch.equal(again["codes"], coded["codes"])
    assert torch.equal(model.decode(coded["codes"].numpy()), model.decode(coded))


def test_features_are_those_that_the_codes_stand_for(model: Model) -> None:
    seen = model.embed(signals(2))
    assert seen["features"].shape == (2, 4, 8)
    assert torch.equal(seen["codes"], model.encode(signals(2))["codes"])


def test_signals_are_generated(model: Model) -> None:
    assert model.generate(3).shape == (3, 1, 32)
    drawn = model.generate(2, temperature=1.0, seeds=[1, 2])
    assert torch.equal(drawn, model.generate(2, temperature=1.0, seeds=[1, 2]))
    torch.testing.assert_close(drawn[1:], model.generate(1, temperature=1.0, seeds=[2]))
    assert model.generate(1, beam=2).shape == (1, 1, 32)
    with pytest.raises(VqtoolError, match="beam search and sampling exclude each other"):
        model.generate(1, beam=2, top_k=3)


@pytest.mark.parametrize(("call", "message"), [
    (lambda m: m.sample_paths(signals(1), 4), "cannot forecast; it was trained with `autoencode`, `predict-codes`"),
    (lambda m: m.classify(signals(1)), "cannot classify; it was trained with `autoencode`, `predict-codes`"),
    (lambda m: m.transmit(signals(1), 10.0), "cannot transmit; it was trained with"),
    (lambda m: m.encode(torch.zeros(2, 32)), r"`x` should have the shape \[B, 1, 32\], not \[2, 32\]"),
    (lambda m: m.encode({"y": signals(1)}), "have no field `y`"),
    (lambda m: m.encode("sound.wav"), "`x` should be a tensor or an array of numbers, not str"),
    (lambda m: m.decode({"sent": torch.zeros(1, 0)}), "there are no `codes` to decode"),
    (lambda m: m.encode({}), r"also reads the field `x` \[B, 1, 32\]"),
    (lambda m: m.decode(torch.full((1, 4, 2), 99)), "99"),
    (lambda m: m.decode({"codes": m.encode(signals(1))["codes"], "sent": torch.zeros(1, 3)}), "side information"),
])  # fmt: skip
def test_what_it_cannot_do_is_one_error(model: Model, call: object, message: str) -> None:
    with pytest.raises(VqtoolError, match=message):
        call(model)


def test_a_model_that_was_not_loaded_from_a_file_says_this_model(model: Model) -> None:
    fresh = Model(model.recipe, model.spec, model.parts, model.tasks)
    with pytest.raises(VqtoolError, match="this model cannot classify; it was trained with"):
        fresh.classify(signals(1))


def test_without_a_path_it_is_the_newest_run(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VqtoolError, match="there is no trained run under `runs/`"):
        vqtool.load()
    run.rename(tmp_path / "runs" / "mine")
    try:
        assert vqtool.load().path == Path("runs/mine/prior.safetensors")
    finally:
        (tmp_path / "runs" / "mine").rename(run)
