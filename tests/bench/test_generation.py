"""`vqtool bench generation`, on a tiny shape: what it says, and that ours writes what was asked for."""

from __future__ import annotations

import json

import pytest
import torch

from vqtool.bench import generation
from vqtool.bench.generation import Case, ours
from vqtool.commands import bench
from vqtool.console import out

TINY = Case(2, prompt=2, new=3, codes=16, layers=1, heads=2, width=8, top_k=3)


def test_the_table(monkeypatch, capsys):
    monkeypatch.setattr(generation, "CASES", (TINY,))
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(out, "mode", "json")
    assert bench.run(case="generation", kinds=[], device="cpu") == 0
    (row,) = json.loads(capsys.readouterr().out)["cases"]
    assert row["mode"] == "generate"
    assert row["tokens_per_second"] == pytest.approx(1000 * 6 / row["ours_ms"])
    for peer in row["peers"].values():
        assert peer["ratio"] == pytest.approx(peer["ms"] / row["ours_ms"])


def test_ours_continues_from_the_prompt():
    prompt = torch.randint(16, (2, 2))
    codes = ours(TINY, prompt)()
    assert codes.shape == (2, 5, 1)
    assert torch.equal(codes[:, :2, 0], prompt)


def test_the_peer_writes_as_much():
    pytest.importorskip("transformers")
    prompt = torch.randint(16, (2, 2))
    assert [name for name, _ in generation.peers(TINY, prompt)] == ["transformers GPT-2"]
    for _, call in generation.peers(TINY, prompt):
        call()
