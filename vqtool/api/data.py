"""The data contract: a spec, one map-style dataset per split, and the class that handles a user's own files."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch

from vqtool.api.files import Files
from vqtool.api.spec import Batch, DataSpec, Field, FieldRole

__all__ = ["Batch", "Data", "DataSpec", "Field", "FieldRole", "Rows", "TensorRows"]


class Rows(Protocol):
    """A map-style dataset; `__getitems__` answers for a whole batch at once (and gives a ready `Batch`)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Batch: ...
    def __getitems__(self, indices: list[int]) -> Batch: ...


class TensorRows:
    """Rows held in memory: a dict of tensors that share their first axis."""

    def __init__(self, columns: Batch) -> None:
        self.columns = columns
        self.n = len(next(iter(columns.values())))

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Batch:
        return {name: column[index] for name, column in self.columns.items()}

    def __getitems__(self, indices: list[int]) -> Batch:
        where = torch.as_tensor(indices, dtype=torch.long)
        return {name: column[where] for name, column in self.columns.items()}


class Data:
    """Base of all data sets. Keyword-only parameters are the recipe's options.

    An option annotated as `Path` is resolved against the folder of the recipe's file before it arrives here.
    The constructor reads and checks the data and raises `VqtoolError` for what is wrong with it.
    """

    spec: DataSpec
    splits: tuple[str, ...]  # "train", "valid", then the held-out ones, each under its official name
    notes: tuple[str, ...] = ()  # what was found in the data and should be reported, in sentences
    files: ClassVar[type[Files]] = Files  # how files of a user are read and written; `Files` itself: not at all

    def rows(self, split: str) -> Rows:
        """The rows of one split; evaluation rows are fixed (any randomness in them is part of the file or seeded)."""
        raise NotImplementedError

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Vary a training batch; randomness only from `generator` (the loop seeds it by seed, stage, step and rank)."""
        return batch
