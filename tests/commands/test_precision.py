"""`--precision` of the commands that use a model: each computes in it, and its figures are close to float32's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.run import within
from tests.model.test_precision import SMALL
from tests.training.test_resume import session
from tests.training.tiny import write_recipe
from vqtool.cli import app


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("precision")
    made = session(write_recipe(folder, prior=True), folder / "run", SMALL)
    assert made.train() == 0
    made.run_dir.close()
    return folder / "run"


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The precisions that autocast was asked for."""
    seen: list[Any] = []

    class Watched(torch.autocast):
        def __init__(self, *given: Any, **named: Any) -> None:
            seen.append(named.get("dtype"))
            super().__init__(*given, **named)

    monkeypatch.setattr(torch, "autocast", Watched)
    return seen


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_evaluate(run: Path, precision: str, entered: list[Any]) -> None:
    done = [within("evaluate", run, "--precision", one, "--json") for one in ("fp32", precision)]
    plain, half = (json.loads(one.stdout) for one in done)
    assert {"bf16": torch.bfloat16, "fp16": torch.float16}[precision] in entered
    name = "error.mean"
    first, second = (one["splits"]["test"]["model"][name] for one in (plain, half))
    assert second == pytest.approx(first, rel=0.05)


def test_encode(run: Path, tmp_path: Path, entered: list[Any]) -> None:
    signals, out = run.parent / "signals.npz", tmp_path / "codes.safetensors"
    assert within("encode", run, signals, "--out", out, "--precision", "bf16").returncode == 0
    assert torch.bfloat16 in entered
    assert within("decode", run, out, "--out", tmp_path / "back.npz").returncode == 0


def test_every_command_that_runs_networks_has_it() -> None:
    having = {
        command.name or command.callback.__name__
        for command in app.registered_commands
        if command.callback is not None and "precision" in command.callback.__signature__.parameters
    }
    assert having == {"evaluate", "encode", "generate", "forecast", "backtest", "codes", "classify", "transmit"}
