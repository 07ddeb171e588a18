"""Stopping by a signal and resuming gives bit for bit what an unbroken run gives."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.run import within
from tests.training.tiny import write_recipe
from vqtool.errors import VqtoolError
from vqtool.model import checkpoint
from vqtool.model.runs import rows_of
from vqtool.recipe import load
from vqtool.training.rundir import RunDir
from vqtool.training.runtime import Runtime
from vqtool.training.session import Session, resume

HERE = Runtime(torch.device("cpu"))


def session(
    recipe: Path, folder: Path, overrides: list[str] | None = None, start: Path | None = None, fresh: Sequence[str] = ()
) -> Session:
    loaded = load(recipe, overrides or [])
    made = Session(loaded, RunDir.create(loaded, folder, argv=[], device="cpu"), HERE)
    made.start(start, fresh=fresh)
    return made


def rows(run: Path) -> list[dict[str, object]]:
    """The rows of metrics.jsonl, without the time that they took."""
    return [{**row, "seconds": None} for row in rows_of(run / "metrics.jsonl")]


def killed_at(monkeypatch: pytest.MonkeyPatch, made: Session, step: int) -> None:
    """Train, and end without a chance to save before the given step."""
    from vqtool.training import loop

    original = loop.StageLoop._step

    def killed(self: loop.StageLoop, *args: object) -> dict[str, float]:
        if self.progress.step == step:
            raise RuntimeError("killed")
        return original(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop.StageLoop, "_step", killed)
        with pytest.raises(RuntimeError, match="killed"):
            made.train()
    made.run_dir.close()


def same(first: Path, second: Path, *names: str) -> None:
    """Checkpoints of two runs hold the same, bit for bit."""
    for name in names:
        one, other = (checkpoint.load(run / f"{name}.safetensors").tensors for run in (first, second))
        assert one.keys() == other.keys()
        for tensor in one:
            assert torch.equal(one[tensor], other[tensor]), (name, tensor)


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


def stopped_and_resumed(
    monkeypatch: pytest.MonkeyPatch, step: int, recipe: Path, folder: Path, options: list[str]
) -> None:
    """A run that a signal stops after a step, and that is then resumed to its end."""
    with monkeypatch.context() as patch:
        stop_at(patch, step, signal.SIGTERM)
        broken = session(recipe, folder, options)
        assert broken.train() == signal.SIGTERM
    broken.run_dir.close()
    again, state = resume(RunDir.open(folder), HERE)
    assert again.train(state=state) == 0


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
    stopped_and_resumed(monkeypatch, step, recipe, tmp_path / "broken", options)
    same(unbroken, tmp_path / "broken", "tokenizer", "prior", "last", "best")
    assert rows(tmp_path / "broken") == rows(unbroken)


def test_a_killed_run_continues_from_its_last_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, options = write_recipe(tmp_path), ["train.average=0.9", "train.valid_every=4"]
    assert session(recipe, tmp_path / "whole", options).train() == 0
    killed_at(monkeypatch, session(recipe, tmp_path / "broken", options), 10)
    again, state = resume(RunDir.open(tmp_path / "broken"), HERE)
    assert state.metadata["progress"]["step"] == 8
    assert again.train(state=state) == 0
    same(tmp_path / "whole", tmp_path / "broken", "last")


@pytest.mark.parametrize(("seconds", "step", "saved"), [(1e-9, 3, True), (60.0, 3, False), (60.0, 0, False)])
def test_a_run_is_saved_before_its_first_validation(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: Callable[[list[str]], Path],
    seconds: float,
    step: int,
    saved: bool,
) -> None:
    monkeypatch.setattr("vqtool.training.loop.SHARE", 1e9)  # of the time in saving: any
    recipe, options = write_recipe(tmp_path, prior=True), [f"train.save_seconds={seconds}"]
    killed_at(monkeypatch, session(recipe, tmp_path / "broken", options), step)
    again, state = resume(RunDir.open(tmp_path / "broken"), HERE)
    assert state.metadata.get("progress", {}).get("step", 0) == (step if saved else 0)
    assert again.train(state=state) == 0
    same(whole([]), tmp_path / "broken", "tokenizer", "prior", "last", "best")
    assert rows(tmp_path / "broken") == rows(whole([]))


def test_saving_takes_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from vqtool.training import loop

    now, saves = [0.0], []

    def save(kind: str) -> None:
        saves.append(now[0])
        now[0] += 10

    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    saving = loop.Saving(save, 60)
    while now[0] < 1000:
        saving.if_due()
        now[0] += 1
    assert saves[0] == 60
    assert [b - a for a, b in itertools.pairwise(saves)] == [210] * (len(saves) - 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 1)])
def test_a_run_that_ends_in_its_evaluation_is_finished_by_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None, code: int
) -> None:
    def ends(*_: object) -> None:
        if number is not None:
            os.kill(os.getpid(), number)
        raise MemoryError("out of memory")

    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("vqtool.training.session.evaluate", ends)
        done = within("train", recipe, "-o", run, "-s", "train.steps=4")
    assert done.returncode == code
    assert number is None or f"continue with `vqtool resume {run}`" in done.stderr
    before = checkpoint.load(run / "tokenizer.safetensors")
    assert not (run / "summary.json").exists()
    assert within("resume", run).returncode == 0
    assert json.loads((run / "summary.json").read_text())["splits"]["test"]["model"]
    assert not (run / "resume.safetensors").exists()
    after = checkpoint.load(run / "tokenizer.safetensors")
    assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())
    assert after.metadata == before.metadata
    assert within("resume", run).returncode == 2


def test_a_signal_in_the_very_last_save_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, original = write_recipe(tmp_path), RunDir.save

    def signalled(self: RunDir, name: str, *rest: object) -> None:
        if name == "tokenizer.safetensors":
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, name, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "save", signalled)
        done = within("train", recipe, "-o", tmp_path / "run", "-s", "train.steps=2")
    assert done.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "run" / "summary.json").exists()
    assert within("resume", tmp_path / "run").returncode == 0


def test_changed_data_are_refused_unless_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 3, signal.SIGTERM)
        broken = session(recipe, run)
        assert broken.train() == signal.SIGTERM
        broken.run_dir.close()
    x = np.load(tmp_path / "signals.npz")["x"]
    np.savez(tmp_path / "signals.npz", x=-x)
    before = (run / "resume.safetensors").read_bytes()
    refused = within("resume", run)
    assert refused.returncode == 2
    assert "the data are not those that the run began with: `data.path` still has 1 file of" in refused.stderr
    assert (run / "resume.safetensors").read_bytes() == before
    with monkeypatch.context() as patch:
        stop_at(patch, 3, signal.SIGTERM)
        done = within("resume", run, "--force")
    assert done.returncode == 128 + signal.SIGTERM
    assert "warning: other data than the run began with" in done.stderr
    done = within("resume", run)
    assert done.returncode == 0, done.stderr


def test_a_finished_run_has_nothing_to_resume(tmp_path: Path) -> None:
    made = session(write_recipe(tmp_path), tmp_path / "run", ["stage.tokenizer.steps=2"])
    made.train()
    made.finish(seconds=0.0)
    made.run_dir.close()
    with pytest.raises(VqtoolError, match="nothing to resume: it is finished"):
        resume(RunDir.open(tmp_path / "run"), HERE)
