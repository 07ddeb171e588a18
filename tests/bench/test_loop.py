"""`vqtool bench loop`: both sides do the same work, and the report is of pairs of turns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vqtool.bench import loop
from vqtool.commands import bench
from vqtool.console import out

CPU = torch.device("cpu")


def test_both_sides_end_at_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "ROWS", 64)  # 45 rows of training, two steps an epoch
    engine, _ = loop.engine(tmp_path, CPU)
    hand, turn = loop.ByHand(*loop.engine(tmp_path, CPU)), loop.Turn()
    start = {name: value.clone() for name, value in hand.parts.state_dict().items()}
    hand.run(5)
    for steps in (2, 3):
        turn.left = steps
        engine.run(turn, lambda kind: None)
    assert engine.progress.step == hand.step == 5
    for name, value in engine.model.parts.state_dict().items():
        assert torch.equal(value, hand.parts.state_dict()[name]), name
    moved = [name for name, value in start.items() if not torch.equal(value, hand.parts.state_dict()[name])]
    assert {name.split(".")[0] for name in moved} == {"encoder", "quantizer", "decoder"}


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(loop, "ROWS", 64)
    monkeypatch.setattr(loop, "TURN", 1)
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(out, "mode", "json")
    assert bench.run(case="loop", kinds=[], device="cpu") == 0
    (row,) = json.loads(capsys.readouterr().out)["cases"]
    assert row["peers"]["by hand"]["ratio"] == pytest.approx(1 / (1 + row["overhead"]))
    assert row["ours_ms"] > 0
