"""How often a step waits for the device: once, whatever the number of micro-batches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.test_resume import session
from tests.training.tiny import write_recipe
from vqtool.training.loop import StageLoop
from vqtool.training.runtime import Runtime
from vqtool.training.starting import start_codebooks

READS = {"aten::_local_scalar_dense", "aten::item", "aten::equal", "aten::nonzero", "aten::is_nonzero"}


class Reads(TorchDispatchMode):
    """Counts values that the engine itself reads of tensors: a part may know that it computes on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in READS:
            frame = sys._getframe()
            while frame is not None and "/vqtool/" not in frame.f_code.co_filename:
                frame = frame.f_back
            if frame is not None and "/vqtool/training/" in frame.f_code.co_filename:
                self.places.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], StageLoop]:
    """A loop of a recipe with four micro-batches a step, which logs nothing."""

    def made(precision: str) -> StageLoop:
        overrides = ["train.accumulate=4", "train.log_every=1000", f"train.precision={precision}", "train.average=0.9"]
        one = session(write_recipe(tmp_path), tmp_path / precision, overrides)
        loop = StageLoop(one.model, one.recipe.stages[0], one.data, one.runtime, seed=0, log=lambda row: None)
        start_codebooks(loop)
        loop.progress.step = 1  # the first step has a row of its own
        loop.shown = float("inf")  # as if the bar had just been given figures
        return loop

    return made


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_waits_once(steps: Callable[[str], StageLoop], monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    loop, fetched = steps(precision), []
    fetch = Runtime.fetch

    def counted(self: Runtime, values: Tensor) -> Callable[[], list[float]]:
        fetched.append(values.shape)
        return fetch(self, values)

    monkeypatch.setattr(Runtime, "fetch", counted)
    with Reads() as reads:
        for _ in range(3):
            loop._step(loop.module)
            loop.progress.step += 1
    assert reads.places == []
    assert fetched == [(4,)] * 3


def test_a_read_of_the_engine_is_seen(steps: Callable[[str], StageLoop]) -> None:
    loop = steps("fp32")
    loop.shown = 0.0  # the bar is due: it reads the loss
    with Reads() as reads:
        loop._step(loop.module)
    assert len(reads.places) == 1


def test_the_loss_is_on_its_way_before_the_last_backward_pass(
    steps: Callable[[str], StageLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, order = steps("fp32"), []
    fetch, backward = Runtime.fetch, torch.Tensor.backward
    monkeypatch.setattr(Runtime, "fetch", lambda *of: (order.append("fetch"), fetch(*of))[1])
    monkeypatch.setattr(torch.Tensor, "backward", lambda *of: (order.append("backward"), backward(*of))[1])
    loop._step(loop.module)
    assert order == ["backward"] * 3 + ["fetch", "backward"]
