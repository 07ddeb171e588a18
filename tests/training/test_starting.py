"""Training without quantization first: codebooks start behind it, and nothing that is measured before counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vqtool
from tests.diagnosis.unhealthy import healthy_case
from tests.training.test_ranks import run_ranks
from tests.training.test_resume import HERE, killed_at, rows, same, session, stopped_and_resumed
from tests.training.tiny import PRIOR, TOKENIZER, write_recipe
from vqtool.catalog import catalog
from vqtool.diagnosis.reading import report_of
from vqtool.errors import VqtoolError
from vqtool.model import checkpoint
from vqtool.training.rundir import RunDir
from vqtool.training.session import resume

KINDS = catalog().names("quantizer")
HALF = ["stage.tokenizer.bypass=0.5", "stage.tokenizer.steps=12", "stage.tokenizer.valid_every=2", "train.log_every=2"]


def recipe_of(folder: Path, kind: str) -> Path:
    """The tiny recipe with a small quantizer of a kind, and a prior."""
    recipe = write_recipe(folder)
    terms = sorted(catalog().load("quantizer", kind).terms)
    text = TOKENIZER.format(seed=0).replace(
        "mse = 1.0, commitment = 0.25", ", ".join(["mse = 1.0", *(f'"{term}" = 0.1' for term in terms)])
    )
    start, end = text.index("[quantizer]"), text.index("[decoder]")
    recipe.write_text(text[:start] + f"[quantizer]\n{healthy_case(kind).quantizer}\n" + text[end:] + PRIOR)
    return recipe


@pytest.mark.parametrize("kind", KINDS)
def test_every_quantizer_trains_behind_a_bypass(tmp_path: Path, kind: str) -> None:
    made = session(recipe_of(tmp_path, kind), tmp_path / "run", [*HALF, "stage.prior.steps=3"])
    assert made.train() == 0
    assert made.finish(seconds=0.0)["splits"]["test"]["model"]["codes.used"] > 0
    logged = [row for row in rows(tmp_path / "run") if row["stage"] == "tokenizer"]
    for row in logged:
        assert ("codes.used" in row) == (row["step"] > 6)
        assert row["quantizer.bypass"] == (1 if row["step"] <= 6 else 0)


def test_the_codebooks_start_from_what_was_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, at the first step that quantizes, from the encoder as it is then."""
    made = session(write_recipe(tmp_path), tmp_path / "run", HALF)
    quantizer, given = made.model.quantizer, []
    assert quantizer is not None
    original, encoder = quantizer.initialise, made.model.parts["encoder"]

    def initialise(z: Tensor, mask: Tensor | None = None, *, seed: int = 0) -> None:
        given.append((z, {name: p.detach().clone() for name, p in encoder.named_parameters()}))
        original(z, mask, seed=seed)

    first = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    monkeypatch.setattr(quantizer, "initialise", initialise)
    killed_at(monkeypatch, made, 6)
    assert not given
    assert not quantizer.initialised
    again, state = resume(RunDir.open(tmp_path / "run"), HERE)
    monkeypatch.setattr(again.model.quantizer, "initialise", initialise)
    encoder = again.model.parts["encoder"]
    quantizer = again.model.quantizer
    original = type(quantizer).initialise.__get__(quantizer)
    assert again.train(state=state) == 0
    assert len(given) == 1
    assert not any(torch.equal(first[name], moved) for name, moved in given[0][1].items() if moved.dim() > 1)


def test_codebooks_from_a_checkpoint_start_again(tmp_path: Path) -> None:
    """The encoder has left them behind."""
    recipe = write_recipe(tmp_path)
    assert session(recipe, tmp_path / "first", ["stage.tokenizer.steps=4"]).train() == 0
    held = checkpoint.load(tmp_path / "first" / "last.safetensors").tensors["parts.quantizer.levels.0.codebook.codes"]
    from vqtool.recipe import load
    from vqtool.training.session import Session

    loaded = load(recipe, [*HALF, "train.lr=1e-9"])
    made = Session(loaded, RunDir.create(loaded, tmp_path / "second", argv=[], device="cpu"), HERE)
    made.start(tmp_path / "first" / "last.safetensors")
    assert made.train() == 0
    codes = checkpoint.load(tmp_path / "second" / "last.safetensors").tensors["parts.quantizer.levels.0.codebook.codes"]
    assert torch.cdist(held, codes).amin(1).max() > 1e-3


def test_the_best_is_one_that_quantizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error without quantization is smaller, and not one of codes: neither best, nor patience, nor stop_when."""
    options = [*HALF, "train.lr=1e-9", 'stage.tokenizer.stop_when={"mse" = "< 100"}', "stage.tokenizer.patience=1"]
    made = session(write_recipe(tmp_path), tmp_path / "run", options)
    assert made.train() == 0
    metrics = checkpoint.load(tmp_path / "run" / "best.safetensors").metadata["metrics"]
    assert metrics["best_step"] == 8
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tokenizer ") and "snr" in line]
    assert [line.split()[1] for line in lines] == ["2/12", "4/12", "6/12", "8/12"], "the first that counts ends it"
    assert all(line.endswith("bypass 1") and "best" not in line and "used" not in line for line in lines[:3])
    assert lines[3].endswith("bypass 0")
    assert "used" in lines[3]


def test_a_metric_of_codes_may_be_the_best(tmp_path: Path) -> None:
    options = [*HALF, 'stage.tokenizer.best="snr.db"', 'stage.tokenizer.best_mode="max"']
    made = session(write_recipe(tmp_path), tmp_path / "run", options)
    assert made.train() == 0
    assert ["snr.db" in row for row in rows(tmp_path / "run") if row["split"] == "valid"] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(("kind", "step"), [("residual-ema", 3), ("residual-ema", 6), ("gradient", 7), ("fsq", 6)])
def test_resumed_equals_unbroken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, step: int) -> None:
    """Stopped in the bypass, right before it ends, and right behind."""
    recipe, options = recipe_of(tmp_path, kind), [*HALF, "train.average=0.9", "stage.prior.steps=1"]
    assert session(recipe, tmp_path / "whole", options).train() == 0
    stopped_and_resumed(monkeypatch, step, recipe, tmp_path / "broken", options)
    same(tmp_path / "whole", tmp_path / "broken", "tokenizer", "prior", "last", "best")
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["residual-ema", "gradient"])
def test_ranks_start_alike(tmp_path: Path, kind: str) -> None:
    text = write_recipe(tmp_path).read_text()
    if kind == "gradient":
        text = (
            text.replace("levels = 2\n", "").replace("residual-ema", kind).replace("0.25 }", "0.25, codebook = 1.0 }")
        )
    (tmp_path / "tiny.toml").write_text(text)
    options = ["stage.tokenizer.steps=8", "stage.tokenizer.bypass=0.5", "train.clip=0.5"]
    whole = run_ranks(1, tmp_path, options)[0]
    first, second = run_ranks(2, tmp_path, options)
    for name in whole:
        assert torch.equal(first[name], second[name]), name
        if whole[name].is_floating_point():
            torch.testing.assert_close(first[name], whole[name], rtol=5e-3, atol=5e-4, msg=name)


def test_a_collapse_is_neither_seen_nor_diagnosed_before_there_are_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*HALF, "diagnose.every=1", "train.log_every=1", "train.save_seconds=1e-9"]
    made = session(write_recipe(tmp_path), tmp_path / "run", options)
    killed_at(monkeypatch, made, 5)
    assert "warning" not in capsys.readouterr().err
    report = report_of(tmp_path / "run" / "last.safetensors")
    assert report.tokens == 0
    assert report.history == []
    with pytest.raises(VqtoolError, match="never started"):
        vqtool.load(tmp_path / "run" / "last.safetensors").encode(torch.zeros(1, 1, 32))


def test_knobs_of_a_checkpoint_do_not_hold_it(tmp_path: Path) -> None:
    made = session(write_recipe(tmp_path), tmp_path / "run", HALF)
    assert made.train() == 0
    assert "quantizer.bypass" not in checkpoint.load(tmp_path / "run" / "best.safetensors").metadata["knobs"]
    assert json.loads((tmp_path / "run" / "resolved.json").read_text())["stages"][0]["train"]["bypass"] == 0.5


def test_a_schedule_may_let_it_fade(tmp_path: Path) -> None:
    more = '[stage.schedule]\n"quantizer.bypass" = { kind = "linear", from = 1.0, to = 0.0, start = 0.3, end = 0.8 }\n'
    made = session(write_recipe(tmp_path, more=more), tmp_path / "run", HALF[1:])
    assert made.train() == 0
    values = [row["quantizer.bypass"] for row in rows(tmp_path / "run") if row["split"] == "valid"]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 3
    best = checkpoint.load(tmp_path / "run" / "best.safetensors").metadata["metrics"]["best_step"]
    assert dict(zip(range(2, 14, 2), values, strict=True))[best] == 0


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        ("", ['stage.tokenizer.set={"quantizer.bypass" = 1}'], "would end with the quantizer bypassed"),
        ("", ["stage.tokenizer.bypass=0.5", "stage.tokenizer.steps=1"], "would end with the quantizer bypassed"),
        ('[stage.schedule]\n"quantizer.bypass" = { kind = "linear", from = 0.0, to = 1.0 }\n', [], "would end with"),
        ('[stage.schedule]\n"quantizer.bypass" = { kind = "linear", from = 1.0, to = 0.0 }\n',
         ["stage.tokenizer.bypass=0.5"], "exclude each other"),
        (PRIOR + 'set = { "quantizer.bypass" = 0 }\n', [], "task `predict-codes` does not train the quantizer"),
    ],
)  # fmt: skip
def test_what_cannot_be(tmp_path: Path, more: str, options: list[str], message: str) -> None:
    with pytest.raises(VqtoolError, match=message):
        session(write_recipe(tmp_path, more=more), tmp_path / "run", options)


def test_codes_that_a_task_needs_cannot_be_bypassed(tmp_path: Path) -> None:
    text = (write_recipe(tmp_path)).read_text()
    text = text.replace("autoencode", "contrast").replace("mse = 1.0, commitment", "info-nce = 1.0, commitment")
    start, end = text.index("[decoder]"), text.index("[train]")
    (tmp_path / "tiny.toml").write_text(text[:start] + '[context]\nkind = "transformer"\n\n' + text[end:])
    with pytest.raises(VqtoolError, match="task `contrast` needs codes"):
        session(tmp_path / "tiny.toml", tmp_path / "run", ["train.bypass=0.5"])


def test_a_dry_run_quantizes(tmp_path: Path) -> None:
    """So that what fails behind the bypass is known before it."""
    from vqtool.recipe import load
    from vqtool.training import session as sessions

    seen: list[float] = []
    recipe = load(write_recipe(tmp_path), HALF)
    kind = catalog().load("quantizer", "residual-ema")
    original = kind.coded

    def coded(self: object, *args: object) -> object:
        seen.append(1)
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "coded", coded)
        sessions.try_stages(recipe, step=True)
    assert seen
