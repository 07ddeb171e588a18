"""What a run logs can be read back from its event file."""

from __future__ import annotations

import importlib.util
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
    assert [step for step, _ in trained][:2] == [1, 5]
    assert seen == [(step, pytest.approx(value, rel=1e-6)) for step, value in trained]


def test_use_of_codes_and_reconstructions_are_there(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = vqtool("train", write_recipe(tmp_path), "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    events = accumulator.EventAccumulator(
        str(tmp_path / "run" / "tensorboard"), size_guidance={"histograms": 0, "images": 0}
    )
    events.Reload()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    valid = [row["step"] for row in rows if row["split"] == "valid"]
    use = events.Histograms("valid/tokenizer/codes/level0")
    assert [one.step for one in use] == valid
    assert use[0].histogram_value.num == sum(use[0].histogram_value.bucket) > 0
    assert len([count for count in use[-1].histogram_value.bucket if count]) <= 8
    if importlib.util.find_spec("matplotlib") is not None:
        assert [one.step for one in events.Images("valid/tokenizer/curves")] == valid


@pytest.mark.parametrize(("shape", "rate", "tag"), [((2, 3, 8, 8), None, "images"), ((2, 1, 400), 8000.0, "audio")])
def test_pictures_are_seen_and_sound_is_heard(
    tmp_path: Path, shape: tuple[int, ...], rate: float | None, tag: str
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    import torch

    import vqtool_tensorboard
    from vqtool.api import DataSpec, Field
    from vqtool.training.validate import Validation

    class Run:
        folder = tmp_path

    spec = DataSpec({"x": Field(shape[1:], "signal")}, sample_rate=rate)
    pair = torch.rand(shape), torch.rand(shape)
    validation = Validation("stage", 7, {}, spec, lambda most: pair)
    vqtool_tensorboard.vqtool_validated(run=Run(), validation=validation)
    vqtool_tensorboard.vqtool_run_finished(run=Run())
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    counts = {name: sum(name in t for t in events.Tags()[tag]) for name in ("original", "reconstruction")}
    assert set(counts.values()) == {2 if tag == "audio" else 1}  # a grid of pictures


def test_without_the_library_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vqtool_tensorboard

    class Run:
        folder = tmp_path

    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr(vqtool_tensorboard.importlib.util, "find_spec", lambda name: None)
    vqtool_tensorboard.vqtool_metrics(run=Run(), row={"stage": "a", "split": "train", "step": 1, "mse": 1.0})
    assert list(tmp_path.iterdir()) == []
