"""Runs as folders: the rows of `metrics.jsonl` that are whole."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import vqtool
from vqtool.errors import VqtoolError
from vqtool.model.runs import checkpoint_path, pretrained, rows_of


def test_incomplete_lines_are_left_out(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b'{"step": 1}\n{"step": 2, "lo{"step": 3}\n' + b"[" * 100_000 + b'\n\x00\xff\n{"step": 5, "l')
    assert rows_of(metrics) == [{"step": 1}]
    assert rows_of(tmp_path / "nothing.jsonl") == []


def test_models_that_come_along_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for one in pretrained():
        assert one.weights.is_file()
        assert one.recipe.is_file()
        assert checkpoint_path(Path(one.name)) == one.weights
    with pytest.raises(VqtoolError, match="there is no checkpoint or run `forecastr`") as caught:
        checkpoint_path(Path("forecastr"))
    assert "forecaster" in str(caught.value.hint)
    (tmp_path / "runs" / "quakes").mkdir(parents=True)
    for given, meant in ("runs/quake", "runs/quakes"), ("quakes", "runs/quakes"), ("kodec", "codec"):
        with pytest.raises(VqtoolError) as caught:
            checkpoint_path(Path(given))
        assert caught.value.hint == f"did you mean `{meant}`?"
    (tmp_path / "forecaster").mkdir()  # a folder of that name is meant where there is one
    with pytest.raises(VqtoolError, match="no trained run in `forecaster`"):
        checkpoint_path(Path("forecaster"))


def test_models_that_come_along_are_evaluated_as_their_recipes_say() -> None:
    """Not as the run that made them was asked to: `vqtool evaluate codec` measures what the page of the codec shows."""
    for one in pretrained():
        recipe = vqtool.load(one.weights).recipe
        wanted = tomllib.loads(recipe.text)["evaluate"]
        assert list(recipe.evaluate.metrics or ()) == wanted["metrics"], one.name
        assert list(recipe.evaluate.baselines) == wanted.get("baselines", []), one.name
