"""Metrics that learn: shown the training rows first, once for all splits, for the model and for every baseline."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vqtool.api import Baseline, Batch, DataSpec, Field, Metric, TensorRows
from vqtool.api.task import Estimates, Parts
from vqtool.training import evaluate as module
from vqtool.training.runtime import Runtime

HERE = Runtime(torch.device("cpu"))
SPEC = DataSpec({"x": Field((1,), "signal")})
ROWS = {name: TensorRows({"x": torch.arange(n)[:, None]}) for name, n in (("train", 7), ("valid", 2), ("test", 3))}


class Ledger(Metric):
    """Tells what it saw; never what another split's copy saw."""

    learns = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.learned: list[int] = []
        self.seen: list[int] = []

    def learn(self, *, x: torch.Tensor, label: int) -> None:
        self.learned += [label] * len(x)

    def update(self, *, x: torch.Tensor, label: int) -> None:
        self.seen += [label] * len(x)

    def compute(self) -> dict[str, float]:
        return {"learned": len(self.learned), "seen": len(self.seen), "label": sum(self.learned)}


class Plain(Metric):
    """Learns nothing."""

    def update(self, *, x: torch.Tensor) -> None:
        self.n = getattr(self, "n", 0) + len(x)

    def compute(self) -> dict[str, float]:
        return {"plain": self.n}


class OwnBaseline(Baseline):
    """Tells its batches what it is."""

    def predict(self, batch: Batch) -> dict[str, Any]:
        return {"label": 100}


class Task:
    passes = 0

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        self.passes += 1
        return Estimates(named={"label": 1})


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    known = {"ledger": Ledger, "plain": Plain, "own": OwnBaseline}
    monkeypatch.setattr(module, "catalog", lambda: SimpleNamespace(load=lambda _, kind: known[kind]))
    monkeypatch.setattr(module, "made", lambda model, _, kind: known[kind](model.spec))
    wanted = SimpleNamespace(metrics=("ledger", "plain"), baselines=("own",), batch=2, splits=("valid", "test"))
    return SimpleNamespace(
        recipe=SimpleNamespace(evaluate=wanted, seed=0), spec=SPEC, parts=Parts(), tasks={"s": Task()}
    )


def test_training_rows_are_learned_once_and_kept_separate(model: SimpleNamespace) -> None:
    data = SimpleNamespace(rows=ROWS.__getitem__, splits=tuple(ROWS))
    result = module.evaluate(model, "s", data, HERE)
    assert result["valid"]["model"] == {"learned": 7, "seen": 2, "label": 7, "plain": 2}
    assert result["test"]["model"] == {"learned": 7, "seen": 3, "label": 7, "plain": 3}
    assert result["test"]["baselines"]["own"] == {"learned": 7, "seen": 3, "label": 700, "plain": 3}
    assert model.tasks["s"].passes == 4 + 1 + 2  # batches of two: the training rows once, then the splits


def test_validation_while_training_learns_nothing(model: SimpleNamespace) -> None:
    assert module.evaluate_rows(model, "s", ROWS["valid"], HERE) == {"learned": 0, "seen": 2, "label": 0, "plain": 2}


def test_a_task_that_gives_them_nothing_is_not_run_over_all_training_rows(model: SimpleNamespace) -> None:
    model.tasks["s"] = task = Task()
    task.estimate = lambda parts, batch: setattr(task, "passes", task.passes + 1) or Estimates()  # type: ignore
    module.learned_scores(model, "s", ROWS["train"], HERE)
    assert task.passes == 1
    model.recipe.evaluate.metrics = ("plain",)
    module.learned_scores(model, "s", ROWS["train"], HERE)
    assert task.passes == 1
