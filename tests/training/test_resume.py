"""Stopping by a signal and resuming gives bit for bit what an unbroken run gives."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.tiny import write_recipe
from vqtool.recipe import load
from vqtool.training import checkpoint
from vqtool.training.rundir import RunDir
from vqtool.training.runtime import Runtime
from vqtool.training.session import Session, resume

HERE = Runtime(torch.device("cpu"))


def session(recipe: Path, folder: Path, overrides: list[str] | None = None) -> Session:
    loaded = load(recipe, overrides or [])
    made = Session(loaded, RunDir.create(loaded, folder, argv=[], device="cpu"), HERE)
    made.start()
    return made


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int) -> None:
    """Send ourselves a signal while the given step (over all stages) is computed."""
    from vqtool.training import loop

    seen = {"steps": 0}
    original = loop.StageLoop._step

    def counted(self: loop.StageLoop, *args: object) -> dict[str, float]:
        seen["steps"] += 1
        if seen["steps"] == step:
            os.kill(os.getpid(), number)
        return original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.StageLoop, "_step", counted)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], Path]:
    """`whole(options)` is the folder of an unbroken run with these options, trained once for all tests."""
    made: dict[tuple[str, ...], Path] = {}

    def of(options: list[str]) -> Path:
        key = tuple(options)
        if key not in made:
            folder = tmp_path_factory.mktemp("whole")
            assert session(write_recipe(folder, prior=True), folder / "run", options).train() == 0
            made[key] = folder / "run"
        return made[key]

    return of


@pytest.mark.parametrize("step", [10, 27])
@pytest.mark.parametrize("options", [[], ["train.average=0.9", "train.accumulate=2", "train.valid_every=4"]])
def test_resumed_equals_unbroken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    options: list[str],
    whole: Callable[[list[str]], Path],
) -> None:
    unbroken, recipe = whole(options), write_recipe(tmp_path, prior=True)
    with monkeypatch.context() as patch:
        stop_at(patch, step, signal.SIGTERM)
        broken = session(recipe, tmp_path / "broken", options)
        assert broken.train() == signal.SIGTERM
    broken.run_dir.close()
    again, state = resume(RunDir.open(tmp_path / "broken"), HERE)
    assert again.train(state=state) == 0
    for name in ("tokenizer", "prior", "last", "best"):
        first = checkpoint.load(unbroken / f"{name}.safetensors").tensors
        second = checkpoint.load(tmp_path / "broken" / f"{name}.safetensors").tensors
        assert first.keys() == second.keys()
        for tensor in first:
            assert torch.equal(first[tensor], second[tensor]), (name, tensor)
    steps = [
        [(r["stage"], r["step"], r["split"]) for r in map(json.loads, (run / "metrics.jsonl").open())]
        for run in (unbroken, tmp_path / "broken")
    ]
    assert steps[0] == steps[1]


def test_a_killed_run_goes_on_from_its_last_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqtool.training import loop

    recipe, options = write_recipe(tmp_path), ["train.average=0.9", "train.valid_every=4"]
    whole = session(recipe, tmp_path / "whole", options)
    assert whole.train() == 0
    original = loop.StageLoop._step

    def killed(self: loop.StageLoop) -> dict[str, float]:
        if self.progress.step == 10:
            raise RuntimeError("killed")
        return original(self, self.module)

    with monkeypatch.context() as patch:
        patch.setattr(loop.StageLoop, "_step", lambda self, wrapped: killed(self))
        broken = session(recipe, tmp_path / "broken", options)
        with pytest.raises(RuntimeError, match="killed"):
            broken.train()
    broken.run_dir.close()
    again, state = resume(RunDir.open(tmp_path / "broken"), HERE)
    assert state.about["progress"]["step"] == 8
    assert again.train(state=state) == 0
    first, second = (checkpoint.load(tmp_path / run / "last.safetensors").tensors for run in ("whole", "broken"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_finished_run_has_nothing_to_resume(tmp_path: Path) -> None:
    from vqtool.errors import VqtoolError

    made = session(write_recipe(tmp_path), tmp_path / "run", ["stage.tokenizer.steps=2"])
    made.train()
    made.finish(seconds=0.0)
    made.run_dir.close()
    with pytest.raises(VqtoolError, match="nothing to resume: it is finished"):
        resume(RunDir.open(tmp_path / "run"), HERE)
