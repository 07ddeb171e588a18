"""Which rows a step sees: a function of (seed, stage, epoch) alone, so that resuming needs no loader state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from vqtool.api.data import Batch, Data, Rows
from vqtool.errors import VqtoolError
from vqtool.model.seeds import generator_of
from vqtool.training.runtime import Runtime

T = TypeVar("T")


class Batches:
    """The training batches of one stage. `batch` rows make one optimizer step, over all ranks and micro-batches.

    With `ahead`, a thread makes the batches of the next step while this one is computed; by default on a GPU, where
    that costs the step nothing. One thread at a time reads the data, and its errors are raised as they are.
    """

    def __init__(
        self, data: Data, *, batch: int, accumulate: int, seed: int, stage: str, runtime: Runtime,
        ahead: bool | None = None,
    ) -> None:  # fmt: skip
        self.data = data
        self.rows: Rows = data.rows("train")
        self.n = len(self.rows)
        self.batch = min(batch, self.n)
        self.seed, self.stage, self.runtime = seed, stage, runtime
        self.accumulate = min(accumulate, max(1, self.batch // runtime.world))
        if self.n == 0:
            raise VqtoolError("the data set has no training rows")
        if self.batch < runtime.world:
            raise VqtoolError(f"a batch of {self.batch} rows cannot be shared by {runtime.world} ranks")
        self.per_epoch = max(1, self.n // self.batch)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)
        ahead = runtime.device.type == "cuda" if ahead is None else ahead
        self._pool = ThreadPoolExecutor(1, "batches") if ahead else None
        self._next: tuple[int, Future[list[Batch]]] | None = None  # a step, and its batches

    def indices(self, step: int) -> torch.Tensor:
        """The rows of a step, over all ranks; an epoch is a permutation, its incomplete last batch is left out."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order = torch.randperm(self.n, generator=generator_of(self.seed, self.stage, "order", epoch))
            self._epoch = epoch
        return self._order[place * self.batch : (place + 1) * self.batch]

    def micro(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step, augmented, on the device."""
        if self._pool is None:
            made = self._made(step)
        else:
            known = self._next is not None and self._next[0] == step
            made = self._next[1].result() if known and self._next is not None else self._alone(self._made, step)
            self._next = (step + 1, self._pool.submit(self._made, step + 1))
        return [self.runtime.to_device(batch) for batch in made]

    def _made(self, step: int) -> list[Batch]:
        """The same on the host, in memory that a GPU can copy from by itself where it is one."""
        mine = self.indices(step)[self.runtime.rank :: self.runtime.world]
        parts = mine.tensor_split(self.accumulate)
        generator = generator_of(self.seed, self.stage, "augment", step, self.runtime.rank)
        made = [self.data.augment(self.rows.__getitems__(part.tolist()), generator) for part in parts]
        return [self.runtime.pinned(batch) for batch in made]

    def whole(self, step: int) -> Batch:
        """The rows of a step on every rank alike, augmented alike: what codebooks start from."""
        return self.runtime.to_device(self._alone(self._whole, step))

    def _whole(self, step: int) -> Batch:
        generator = generator_of(self.seed, self.stage, "augment", step, 0)
        return self.data.augment(self.rows.__getitems__(self.indices(step).tolist()), generator)

    def _alone(self, make: Callable[[int], T], step: int) -> T:
        """What `make` gives, by the thread that reads the data."""
        return make(step) if self._pool is None else self._pool.submit(make, step).result()

    def wait(self) -> None:
        """Return when the thread reads nothing: before others read the data."""
        if self._next is not None:
            self._next[1].exception()


def in_order(rows: Rows, batch: int, runtime: Runtime) -> Iterator[Batch]:
    """Every row once, in order: the batches of an evaluation, one at a time."""
    for begin in range(0, len(rows), batch):
        yield runtime.to_device(rows.__getitems__(list(range(begin, min(begin + batch, len(rows))))))
