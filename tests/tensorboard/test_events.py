"""What a run logs can be read back from its event file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.run import vqtool
from tests.training.tiny import write_recipe


def test_every_row_of_a_run_is_there(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = vqtool("train", write_recipe(tmp_path), "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = [(row["step"], row["mse"]) for row in rows if row["split"] == "train"]
    seen = [(scalar.step, scalar.value) for scalar in events.Scalars("train/tokenizer/mse")]
    assert len(trained) == 4
    assert seen == [(step, pytest.approx(value, rel=1e-6)) for step, value in trained]


def test_without_the_library_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vqtool_tensorboard

    class Run:
        folder = tmp_path

    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr(vqtool_tensorboard.importlib.util, "find_spec", lambda name: None)
    vqtool_tensorboard.vqtool_metrics(run=Run(), row={"stage": "a", "split": "train", "step": 1, "mse": 1.0})
    assert list(tmp_path.iterdir()) == []
