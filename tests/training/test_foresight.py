"""What would stop a run later is refused before it begins, by `check` as by `train`, and leaves no folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.test_resume import session
from tests.training.tiny import write_recipe
from vqtool.catalog import catalog
from vqtool.commands import check, train
from vqtool.errors import MissingError, VqtoolError
from vqtool.model.model import Model
from vqtool.recipe import load
from vqtool.training import evaluate
from vqtool.training.session import try_stages

REFUSED = {
    "stage.prior.losses={ mse = 1.0 }": "loss `mse` needs",
    "stage.tokenizer.stop_when={ 'nope' = '< 1' }": "`stop_when` names `nope`",
    "stage.prior.show={ 'codes.used.group7' = 'max' }": "`show` names `codes.used.group7`",
    "stage.prior.best=nope": "`best` names `nope`",
    "evaluate.splits=['nope']": "no split called `nope`",
    "evaluate.baselines=['pixels']": "needs a channel",
    "evaluate.baselines=['mu-law', {kind='mu-law'}]": "`mu-law` twice",
    "evaluate.metrics=['si-sdr', {kind='si-sdr', max_shift=0}]": "`si-sdr` twice",
    "train.rates={ nope = 0.1 }": "`rates` names `nope`",
    "encoder.strides=[5]": "not a multiple",
    "stage.prior.show={ 'output.snr_db' = 'max' }": "`show` names `output.snr_db`",
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_run_that_cannot_end_does_not_begin(tmp_path: Path, override: str) -> None:
    recipe = write_recipe(tmp_path, prior=True)
    with pytest.raises(VqtoolError, match=REFUSED[override]):
        check.run(recipe=recipe, overrides=[override], dry_run=False)
    with pytest.raises(VqtoolError, match=REFUSED[override]):
        train.run(recipe=recipe, overrides=[override], out_dir=tmp_path / "run", seed=None, device="cpu", stage=None)
    assert not (tmp_path / "run").exists()


def test_a_metric_that_no_stage_feeds_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["evaluate.metrics=['si-sdr', 'token-accuracy', 'accuracy']"]
    assert check.run(recipe=write_recipe(tmp_path, prior=True), overrides=overrides, dry_run=False) == 0
    said = capsys.readouterr().err
    assert "`accuracy`, which measures nothing here: it reads `label`, `scores`" in said
    assert said.count("measures nothing") == 1  # the others are each of one stage


def test_a_loss_that_fails_does_so_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object, *, x_hat: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("of the loss")

    monkeypatch.setattr(catalog().load("loss", "l1"), "forward", fails)
    recipe = write_recipe(tmp_path)
    with pytest.raises(RuntimeError, match="of the loss"):
        train.run(recipe=recipe, overrides=["stage.tokenizer.losses={ l1 = 1.0 }"], out_dir=tmp_path / "run", seed=None,
                  device="cpu", stage=None)  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_metric_that_needs_more_rows_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object) -> dict[str, float]:
        raise ZeroDivisionError

    monkeypatch.setattr(catalog().load("metric", "si-sdr"), "compute", fails)
    overrides = ["evaluate.metrics=['si-sdr', 'codes']", "stage.tokenizer.best='snr.db'"]
    try_stages(load(write_recipe(tmp_path), overrides))


def test_what_is_not_installed_is_reported_and_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(model: Model, role: str, given: object) -> object:
        raise MissingError(f"the {role} `{given}` needs a program")

    monkeypatch.setattr(evaluate, "made", made)
    overrides = ["evaluate.baselines=['mu-law', 'block-rvq']", "evaluate.metrics=['si-sdr']"]
    assert check.run(recipe=write_recipe(tmp_path), overrides=overrides, dry_run=False) == 0
    said = capsys.readouterr().err
    assert [said.count(f"`{name}` needs a program") for name in ("mu-law", "block-rvq", "si-sdr")] == [1, 1, 1]


def test_a_baseline_with_options_is_called_by_them(tmp_path: Path) -> None:
    given = "evaluate.baselines=['mu-law', { kind = 'mu-law', bits = 8 }]"
    made = session(write_recipe(tmp_path), tmp_path / "run", overrides=[given])
    found = evaluate.evaluate_baselines(made.model, made.data, {"test": made.data.rows("test")})["test"]
    assert list(found) == ["mu-law", "mu-law bits=8"]
    assert found["mu-law bits=8"]["snr.db"] > found["mu-law"]["snr.db"] + 10


def test_an_unknown_stage_leaves_no_folder(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    with pytest.raises(VqtoolError, match="nope"):
        train.run(recipe=recipe, overrides=[], out_dir=tmp_path / "run", seed=None, device="cpu", stage="nope")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name", ["loss", "mse", "codes.perplexity", "output.snr_db", "codes.moved.level0", "codes.entropy_bits.level1"]
)
def test_figures_that_there_will_be_are_taken(tmp_path: Path, name: str) -> None:
    more = "" if not name.startswith("codes.") else f"stage.prior.show={{ '{name}' = 'max' }}"
    overrides = [f"stage.tokenizer.show={{ '{name}' = 'max' }}", *([more] if more else [])]
    try_stages(load(write_recipe(tmp_path, prior=True), overrides))


def test_the_model_stays_as_it_was(tmp_path: Path) -> None:
    made = session(write_recipe(tmp_path), tmp_path / "run")
    assert made.model.quantizer is not None
    assert not made.model.quantizer.initialised
    assert all(p.requires_grad for p in made.model.parts.encoder.parameters())
    assert all(bool(torch.isfinite(p).all()) for p in made.model.parts.parameters())


def test_metrics_that_are_tried_see_no_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def update(self: object, *, x_hat: torch.Tensor) -> None:
        seen.append(x_hat.requires_grad)
        raise RuntimeError("it needs more rows")

    monkeypatch.setattr(catalog().load("metric", "si-sdr"), "update", update)
    try_stages(load(write_recipe(tmp_path), ["evaluate.metrics=['si-sdr']"]))
    assert seen
    assert not any(seen)
