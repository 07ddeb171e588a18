"""Batches made ahead by a thread are those made in turn; its errors come as they are, and it reads alone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from tests.training.test_resume import HERE, rows, same, session, stop_at
from tests.training.tiny import write_recipe
from vqtool.api.data import Batch, Data, DataSpec, Field, Rows, TensorRows
from vqtool.errors import VqtoolError
from vqtool.training import loop
from vqtool.training.batches import Batches


class Noisy(Data):
    """Rows of their numbers, with noise; keeps which threads read it, and fails at a row."""

    splits = ("train",)
    spec = DataSpec({"x": Field((1, 1), "signal")})

    def __init__(self, bad: int | None = None) -> None:
        self.bad, self.threads = bad, set[int]()

    def rows(self, split: str) -> Rows:
        return TensorRows({"x": torch.arange(40.0).view(40, 1, 1)})

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        self.threads.add(threading.get_ident())
        if self.bad is not None and self.bad in batch["x"]:
            raise VqtoolError(f"row {self.bad} is broken")
        return {"x": batch["x"] + torch.rand(batch["x"].shape, generator=generator)}


def batches(data: Data, *, ahead: bool) -> Batches:
    return Batches(data, batch=8, accumulate=2, seed=0, stage="s", runtime=HERE, ahead=ahead)


def test_ahead_gives_the_same_batches_from_any_step() -> None:
    plain, ahead = batches(Noisy(), ahead=False), batches(Noisy(), ahead=True)
    for step in [0, 1, 2, 7, 8, 3, 4]:  # as after a resumed run, and back
        for one, other in zip(plain.micro(step), ahead.micro(step), strict=True):
            assert torch.equal(one["x"], other["x"])
        assert torch.equal(plain.whole(step)["x"], ahead.whole(step)["x"])


def test_one_thread_alone_reads() -> None:
    data = Noisy()
    ahead = batches(data, ahead=True)
    for step in range(6):
        ahead.micro(step)
        ahead.whole(step)
    ahead.wait()
    assert len(data.threads) == 1
    assert threading.get_ident() not in data.threads


def test_the_next_batch_is_made_before_it_is_asked_for() -> None:
    made = batches(Noisy(), ahead=True)
    made.micro(0)
    made.wait()
    step, future = made._next or (None, None)
    assert step == 1
    assert future is not None
    assert future.done()


def test_an_error_of_the_data_is_raised_in_the_step_that_needs_it() -> None:
    order = batches(Noisy(), ahead=False)
    step = next(step for step in range(5) if 13 in order.indices(step))
    ahead = batches(Noisy(bad=13), ahead=True)
    for before in range(step):
        ahead.micro(before)
        ahead.wait()
    with pytest.raises(VqtoolError, match="row 13 is broken"):
        ahead.micro(step)


def test_a_run_with_batches_ahead_is_resumed_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqtool.training.rundir import RunDir
    from vqtool.training.session import resume

    whole = session(write_recipe(tmp_path), tmp_path / "whole")
    assert whole.train() == 0

    class Ahead(Batches):
        def __init__(self, *of: object, **named: object) -> None:
            super().__init__(*of, **{**named, "ahead": True})  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(loop, "Batches", Ahead)
    with monkeypatch.context() as patch:
        stop_at(patch, 9, 15)
        broken = session(write_recipe(tmp_path), tmp_path / "broken")
        assert broken.train() == 15
    broken.run_dir.close()
    made, state = resume(RunDir.open(tmp_path / "broken"), HERE)
    assert made.train(state=state) == 0
    same(tmp_path / "whole", tmp_path / "broken", "last", "best")
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")
