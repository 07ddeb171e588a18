"""Which rows reach W&B, over which steps, and how a run ends there; a recording module stands in for the library."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import vqtool_wandb


class Recorder:
    """One run of the stand-in: it keeps what it is given."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.metrics: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None

    def define_metric(self, name: str, *, step_metric: str | None = None, hidden: bool = False) -> None:
        self.metrics[name] = step_metric

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def finish(self, *, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """The runs that were begun, with the library replaced."""
    runs: list[Recorder] = []

    def init(**settings: Any) -> Recorder:
        runs.append(Recorder(**settings))
        return runs[-1]

    library = ModuleType("wandb")
    library.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    vars(library).update(init=init, Settings=dict)
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.setenv("WANDB_PROJECT", "tiny")
    return runs


@pytest.fixture
def run(tmp_path: Path) -> SimpleNamespace:
    """A run as the hooks get it."""
    (tmp_path / "resolved.json").write_text('{"seed": 3}')
    return SimpleNamespace(folder=tmp_path)


ROW = {"stage": "tokenizer", "split": "train", "step": 5, "seconds": 1.5, "mse": 0.25, "note": "text"}


def test_a_row_is_logged_over_the_steps_of_its_stage(begun: list[Recorder], run: SimpleNamespace) -> None:
    vqtool_wandb.vqtool_metrics(run, ROW)
    vqtool_wandb.vqtool_metrics(run, ROW | {"split": "valid", "step": 10})
    (logged,) = begun  # one run for all rows
    assert logged.settings["config"] == {"seed": 3}
    assert logged.settings["dir"] == str(run.folder)
    assert logged.metrics["train/tokenizer/*"] == "tokenizer/step"
    assert logged.rows == [
        {"tokenizer/step": 5, "train/tokenizer/mse": 0.25},
        {"tokenizer/step": 10, "valid/tokenizer/mse": 0.25},
    ]


@pytest.mark.parametrize(("status", "code"), [("done", 0), ("interrupted", 1), ("failed", 1)])
def test_a_run_ends_there_as_it_ended_here(begun: list[Recorder], run: SimpleNamespace, status: Any, code: int) -> None:
    vqtool_wandb.vqtool_metrics(run, ROW)
    vqtool_wandb.vqtool_run_finished(run, status)
    assert begun[0].summary == {"status": status}
    assert begun[0].exit_code == code
    vqtool_wandb.vqtool_run_finished(run, status)  # the second time there is nothing left to end
    vqtool_wandb.vqtool_metrics(run, ROW)
    assert len(begun) == 2
