"""Signals from a NumPy file: `.npy` [n, C, L] or `.npz` with the key `x` and, optionally, conditions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_doc import Doc
from annotated_types import Interval
from torch import Tensor

from vqtool.api import Batch, Data, DataSpec, Field, Files, Piece, Rows, TensorRows
from vqtool.api.data import FieldRole
from vqtool.errors import VqtoolError
from vqtool.files import save_npz
from vqtool.untrusted import arrays

LARGEST = 1e16  # of the values: sums of their squares are float32


class ArrayFiles(Files):
    """Files with the same keys and window length as the training data."""

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """The arrays of an `.npy` or `.npz` as one piece."""
        columns = _columns(path, needs_x=not condition)
        wanted = [name for name, field in self.spec.fields.items() if not (condition and field.role == "signal")]
        for name in wanted:
            if name not in columns:
                raise VqtoolError(f"`{path}` is missing the key `{name}`", hint="it has " + ", ".join(columns))
            if tuple(columns[name].shape[1:]) != tuple(self.spec.fields[name].shape):
                raise VqtoolError(
                    f"`{name}` in `{path}` has rows of shape {tuple(columns[name].shape[1:])}; the model knows "
                    f"{tuple(self.spec.fields[name].shape)}"
                )
        yield Piece({name: columns[name] for name in wanted})

    def save(self, path: Path, pieces: Iterator[Piece]) -> list[Path]:
        """An `.npz` with `x` and the conditions it belongs to."""
        save_npz(path, {name: value.numpy() for name, value in Piece.joined(pieces).batch.items()})
        return [path]


class Arrays(Data):
    """Rows of one file, split by a seeded permutation into train, valid and test.

    In an `.npz`, `x` is [n, L] or [n, C, L]; keys that begin with `wave_` are conditions [n, C, L] or [n, L],
    those that begin with `scalar_` are conditions [n] or [n, k].
    """

    splits = ("train", "valid", "test")
    files = ArrayFiles

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("an .npy or .npz file")],
        periodic: Annotated[bool, Doc("a row is one period of a periodic signal")] = False,
        valid_share: Annotated[float, Interval(gt=0, lt=1), Doc("share of the rows for validation")] = 0.1,
        test_share: Annotated[float, Interval(gt=0, lt=1), Doc("share of the rows held out")] = 0.2,
        seed: Annotated[int, Doc("of the split")] = 0,
    ) -> None:
        columns = _columns(path)
        n = len(columns["x"])
        if n < 5:
            raise VqtoolError(f"`{path}` has {n} rows; training, validation and test need at least 5 together")
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        test, valid = max(1, round(test_share * n)), max(1, round(valid_share * n))
        cut = {"test": order[:test], "valid": order[test : test + valid], "train": order[test + valid :]}
        self._rows = {name: TensorRows({k: v[where] for k, v in columns.items()}) for name, where in cut.items()}
        self.spec = DataSpec({name: _field(name, value) for name, value in columns.items()}, periodic=periodic)

    def rows(self, split: str) -> Rows:
        """The rows of a split."""
        return self._rows[split]


def _field(name: str, value: Tensor) -> Field:
    role: FieldRole = "signal" if name == "x" else "wave" if name.startswith("wave_") else "scalar"
    return Field(tuple(value.shape[1:]), role)


def _columns(path: Path, *, needs_x: bool = True) -> Batch:
    """The file's arrays as float32 tensors, checked."""
    found, names = arrays(path, lambda name: name == "x" or name.startswith(("wave_", "scalar_")))
    columns: Batch = {}
    for name, array in {name or "x": array for name, array in found.items()}.items():
        if array.dtype.kind in "US":
            raise VqtoolError(f"`{name}` in `{path}` holds text, not numbers")
        short = 1 if name.startswith("scalar_") else 2
        if array.ndim < short:
            raise VqtoolError(f"`{name}` in `{path}` has the shape {array.shape}: its first axis should be the rows")
        with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and reported as such
            value = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        value = value.unsqueeze(1) if value.ndim == short else value
        if not torch.isfinite(value).all():
            row = int((~torch.isfinite(value)).flatten(1).any(1).nonzero()[0])
            raise VqtoolError(f"`{name}` in `{path}` is NaN or infinite in row {row}", hint="drop or repair that row")
        largest = float(value.abs().max()) if value.numel() else 0.0
        if largest > LARGEST:
            raise VqtoolError(
                f"`{name}` in `{path}` reaches {largest:.3g}: its square is too large for float32",
                hint="scale the values",
            )
        columns[name] = value
    if needs_x and ("x" not in columns or columns["x"].ndim != 3 or 0 in columns["x"].shape):
        raise VqtoolError(
            f"`{path}` needs a key `x` of shape [n, C, L] or [n, L]", hint="it has " + (", ".join(names) or "no arrays")
        )
    lengths = {name: len(value) for name, value in columns.items()}
    if len(set(lengths.values())) > 1:
        raise VqtoolError(f"the arrays of `{path}` differ in rows: {lengths}")
    return columns
