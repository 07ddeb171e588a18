"""The loop: accumulation, averages, early stopping, best, precision, and what happens when a loss is no number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.test_resume import session
from tests.training.tiny import write_recipe
from vqtool.errors import VqtoolError
from vqtool.model import checkpoint
from vqtool.quantizers.residual import ResidualEMA


def parts_after(folder: Path, name: str, options: list[str]) -> dict[str, torch.Tensor]:
    made = session(write_recipe(folder), folder / name, options)
    assert made.train() == 0
    return checkpoint.load(folder / name / "last.safetensors").tensors


def test_accumulation_changes_memory_and_not_the_result(tmp_path: Path) -> None:
    whole = parts_after(tmp_path, "whole", ["stage.tokenizer.steps=6"])
    split = parts_after(tmp_path, "split", ["stage.tokenizer.steps=6", "train.accumulate=4"])
    for name in whole:
        torch.testing.assert_close(split[name].float(), whole[name].float(), rtol=2e-3, atol=2e-4, msg=name)


def test_the_loss_falls_and_the_best_is_kept(tmp_path: Path) -> None:
    made = session(write_recipe(tmp_path), tmp_path / "run", ["stage.tokenizer.steps=60", "train.valid_every=10"])
    made.train()
    import json

    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    valid = [row["loss"] for row in rows if row["split"] == "valid"]
    assert valid[-1] < 0.7 * valid[0]
    best = checkpoint.load(tmp_path / "run" / "best.safetensors")
    assert best.metadata["metrics"]["best"] == pytest.approx(min(valid))


def test_codebooks_start_from_one_epoch_of_rows_that_never_vary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = session(write_recipe(tmp_path), tmp_path / "run", ["stage.tokenizer.steps=1"])
    begin, seen = ResidualEMA.initialise, []
    monkeypatch.setattr(
        ResidualEMA, "initialise", lambda self, z, *rest, **named: (seen.append(z), begin(self, z, *rest, **named))
    )
    monkeypatch.setattr(ResidualEMA, "start_tokens", 10**6)
    made.train()
    (z,) = seen
    rows = len(made.data.rows("train"))
    assert rows - 64 < z.shape[0] <= rows


def test_early_stopping(tmp_path: Path) -> None:
    made = session(
        write_recipe(tmp_path),
        tmp_path / "run",
        ["stage.tokenizer.steps=40", "train.valid_every=2", "train.patience=3", "train.lr=1e-12"],
    )
    made.train()
    assert made.done[0]["steps"] < 40


def test_best_by_a_metric_of_the_task(tmp_path: Path) -> None:
    made = session(write_recipe(tmp_path), tmp_path / "run", ["stage.tokenizer.steps=4", 'train.best="error.mean"'])
    made.train()
    assert checkpoint.load(tmp_path / "run" / "best.safetensors").metadata["metrics"]["named"] == "error.mean"


def test_an_unknown_best_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="nonsense"):
        session(write_recipe(tmp_path), tmp_path / "run", ["stage.tokenizer.steps=4", 'train.best="nonsense"'])


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_precision_keeps_codebooks_in_float32(tmp_path: Path, precision: str) -> None:
    tensors = parts_after(tmp_path, precision, ["stage.tokenizer.steps=4", f'train.precision="{precision}"'])
    floats = [t for name, t in tensors.items() if "quantizer" in name and t.is_floating_point()]
    assert floats
    assert all(t.dtype == torch.float32 and torch.isfinite(t).all() for t in floats)


def test_a_loss_that_is_not_a_number_stops_before_it_reaches_the_weights(tmp_path: Path) -> None:
    made = session(write_recipe(tmp_path), tmp_path / "run", ["stage.tokenizer.steps=4"])
    with torch.no_grad():
        next(made.model.parts["decoder"].parameters()).fill_(float("nan"))
    with pytest.raises(VqtoolError, match=r"`mse`.*NaN"):
        made.train()


def test_seeds_make_runs_alike_and_different(tmp_path: Path) -> None:
    one = parts_after(tmp_path, "one", ["stage.tokenizer.steps=3"])
    same = parts_after(tmp_path, "same", ["stage.tokenizer.steps=3"])
    other = parts_after(tmp_path, "other", ["stage.tokenizer.steps=3", "seed=1"])
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
