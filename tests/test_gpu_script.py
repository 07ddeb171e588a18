"""The script for a machine with a GPU, in small on the CPU; and the page that is made of its figures."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from tests import gpu

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    return importlib.import_module("make")


def test_every_part_runs_on_a_cpu_and_its_figures_make_a_page(tmp_path, make):
    if torch.cuda.is_available():
        pytest.skip("the script itself runs there")
    out = tmp_path / "figures.json"
    for part in gpu.PARTS:  # in pieces, each of which adds to the file
        gpu.main([str(out), "--device", "cpu", "--part", part])
    figures = json.loads(out.read_text())
    assert {part: figures[part] for part in gpu.PARTS if "error" in figures[part]} == {}
    assert sum(row["wrong"] for row in figures["float64"]) == 0
    assert all(figures["same_bits"].values())
    assert figures["laws"]["kept"] > 25
    assert figures["laws"]["broken"] == figures["laws"]["not run"] == figures["cpu"]["different"] == {}
    assert set(figures["recipes"].values()) | set(figures["ranks"].values()) == {"trained"}
    assert all(row["train_ms"] > 0 for row in figures["benchmark"])
    assert any(row["peers"] for row in figures["benchmark"])  # formulas; libraries where they are installed
    page = make.gpu_figures(figures)
    assert "0 of 1,560 codes are wrong" in page
    assert "not measured" not in page


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed: pip install triton")
def test_it_measures_the_kernels_in_the_interpreter(tmp_path, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("the script itself runs there")
    launches = importlib.import_module("vqtool.quantizers.gpu.launches")
    for room, name in ((gpu.switch, "LARGE"), (launches, "BY_PRODUCT")):  # the script sets them
        monkeypatch.setattr(room, name, getattr(room, name))
    monkeypatch.setattr(gpu.switch, "_trusted", {})
    monkeypatch.setenv("VQTOOL_KERNELS", "on")
    monkeypatch.setattr(gpu, "data_sets", lambda *sizes, sets=gpu.data_sets: list(sets(*sizes))[:2])
    out = tmp_path / "figures.json"
    gpu.main([str(out), "--device", "cpu", "--part", "float64"])
    figures = json.loads(out.read_text())
    assert figures["kernels"]["float64"] == {f"pass: {dim} features, 1 levels, 1 groups": True for dim in (40, 8)}
    assert sum(row["wrong"] for row in figures["float64"]) == 0


def test_a_wrong_code_is_counted(monkeypatch):
    monkeypatch.setattr(gpu, "nearest", lambda x, e: (torch.zeros(len(x), dtype=torch.long), None))
    assert sum(row["wrong"] for row in gpu.against_float64(gpu.Where("cpu"))) > 1000


def test_without_figures_the_page_says_so(make):
    assert make.gpu_figures({}) == "No figure was measured on a GPU.\n"
    said = make.gpu_figures({"machine": "M", "torch": "2", "date": "today", "benchmark": {"error": "no memory"}})
    assert "laws: not measured" in said
    assert "failed: no memory" in said


def test_what_a_law_makes_on_the_cpu_is_moved():
    meta = torch.device("meta")
    with gpu.Together(meta):
        made = torch.ones(3, device=meta) * torch.ones(3)
        assert made.device == meta
