"""Which weights a stage's checkpoint holds, and that a later stage may not end worse than it began."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.training.test_resume import session
from tests.training.tiny import write_recipe
from vqtool.model import checkpoint
from vqtool.model.format import METADATA, stage_file
from vqtool.model.load import from_checkpoint
from vqtool.model.runs import rows_of

AGAIN = """
[[stage]]
name = "again"
task = "autoencode"
steps = 6
losses = {{ mse = 1.0, commitment = 0.25 }}
lr = {lr}
valid_every = 2
best = "mse"
"""
SHORT = ["stage.tokenizer.steps=8", "stage.tokenizer.valid_every=2", 'stage.tokenizer.best="mse"']


def trained(folder: Path, lr: float, overrides: list[str] = SHORT) -> Path:
    made = session(write_recipe(folder, more=AGAIN.format(lr=lr)), folder / "run", overrides)
    assert made.train() == 0
    return folder / "run"


def parts(path: Path) -> dict[str, torch.Tensor]:
    return {name: t for name, t in checkpoint.load(path).tensors.items() if name.startswith("parts.")}


def same(one: Path, other: Path) -> bool:
    first, second = parts(one), parts(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_stage_that_only_makes_it_worse_ends_as_it_began(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, lr=0.3)
    assert same(run / "again.safetensors", run / "tokenizer.safetensors")
    assert same(run / "best.safetensors", run / "tokenizer.safetensors")
    metadata = checkpoint.load(run / "again.safetensors").metadata
    assert (metadata["stage"], metadata["step"], metadata["metrics"]["best_step"]) == ("again", 0, 0)
    assert "stage `again` never got better than it started" in capsys.readouterr().err
    best = [row["mse"] for row in rows_of(run / "metrics.jsonl") if row["split"] == "valid"]
    assert metadata["metrics"]["best"] == pytest.approx(min(best))


def test_a_stage_that_improves_ends_better(tmp_path: Path) -> None:
    run = trained(tmp_path, lr=3e-3)
    first, second = (checkpoint.load(run / stage_file(name)).metadata["metrics"] for name in ("tokenizer", "again"))
    assert second["best"] < first["best"]
    assert second["best_step"] > 0


@pytest.mark.parametrize("change", ['stage.again.best="loss"', 'stage.again.best_mode="max"'])
def test_stages_by_other_measures_start_anew(tmp_path: Path, change: str) -> None:
    run = trained(tmp_path, 0.3, [*SHORT, change])
    assert checkpoint.load(run / "again.safetensors").metadata["step"] > 0
    assert not [row for row in rows_of(run / "metrics.jsonl") if row["step"] == 0]


def test_a_stage_s_checkpoint_carries_the_step_of_its_weights(tmp_path: Path) -> None:
    """With a learning rate that grows far too high, the best is an early step."""
    recipe = write_recipe(tmp_path, more='schedule.lr = { kind = "geometric", from = 1e-3, to = 1.0 }\n')
    made = session(recipe, tmp_path / "run", ["stage.tokenizer.steps=8", "stage.tokenizer.valid_every=2"])
    assert made.train() == 0
    metadata = checkpoint.load(tmp_path / "run" / "tokenizer.safetensors").metadata
    assert metadata["step"] == metadata["metrics"]["best_step"] == metadata["validation"]["step"] < 8
    assert same(tmp_path / "run" / "tokenizer.safetensors", tmp_path / "run" / "best.safetensors")
    assert not same(tmp_path / "run" / "tokenizer.safetensors", tmp_path / "run" / "last.safetensors")
    assert from_checkpoint(tmp_path / "run" / "last.safetensors", finite=False)[1].metadata["step"] == 8


@pytest.mark.parametrize(("fresh", "kept"), [((), True), (("decoder",), False)])
def test_weights_of_another_run_that_training_only_makes_worse_are_kept(
    fresh: tuple[str, ...], kept: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not where a part that is trained starts anew: what it was at step 0 was never trained."""
    start = trained(tmp_path, lr=3e-3) / "best.safetensors"
    (tmp_path / "on").mkdir()
    made = session(write_recipe(tmp_path / "on"), tmp_path / "on" / "run", [*SHORT, "train.lr=0.3"], start, fresh)
    capsys.readouterr()
    assert made.train() == 0
    assert ("stage `tokenizer` never got better than it started" in capsys.readouterr().err) is kept
    assert same(tmp_path / "on" / "run" / "best.safetensors", start) is kept


def test_a_run_resumed_at_the_very_start_of_such_a_stage_logs_its_start_once(tmp_path: Path) -> None:
    whole = trained(tmp_path, lr=3e-3)
    (tmp_path / "other").mkdir()
    made = session(write_recipe(tmp_path / "other", more=AGAIN.format(lr=3e-3)), tmp_path / "other" / "run", SHORT)
    assert made.train(until="tokenizer") == 0
    made.run_dir.close()
    from vqtool.training.rundir import RunDir
    from vqtool.training.runtime import Runtime
    from vqtool.training.session import resume

    first = resume(RunDir.open(tmp_path / "other" / "run"), Runtime(torch.device("cpu")))
    first[0].run_dir.log({"stage": "again", "step": 0, "split": "valid"})  # as of a run that was killed right after
    first[0].run_dir.close()
    again, state = resume(RunDir.open(tmp_path / "other" / "run"), Runtime(torch.device("cpu")))
    assert again.train(state=state) == 0
    assert same(whole / "again.safetensors", tmp_path / "other" / "run" / "again.safetensors")
    rows = [[(row["stage"], row["split"], row["step"]) for row in rows_of(run / "metrics.jsonl")]
            for run in (whole, tmp_path / "other" / "run")]  # fmt: skip
    assert rows[0] == rows[1]


def test_every_key_that_a_run_writes_has_a_form(tmp_path: Path) -> None:
    made = session(write_recipe(tmp_path), tmp_path / "run", ["stage.tokenizer.steps=2"])
    assert made.train() == 0
    files = sorted((tmp_path / "run").glob("*.safetensors"))
    assert {file.name for file in files} == {f"{n}.safetensors" for n in ("best", "last", "resume", "tokenizer")}
    for file in files:
        assert checkpoint.load(file).metadata.keys() <= METADATA.keys()
    assert json.loads((tmp_path / "run" / "resolved.json").read_text())["stages"][0]["name"] == "tokenizer"
