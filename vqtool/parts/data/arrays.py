"""Signals from a NumPy file: `.npy` [n, C, L] or `.npz` with the key `x` and, optionally, conditions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_doc import Doc
from annotated_types import Interval
from torch import Tensor

from vqtool.api import MASK, Batch, Data, DataSpec, Field, Files, Piece, Rows, TensorRows
from vqtool.api.data import FieldRole
from vqtool.errors import VqtoolError
from vqtool.files import save_npz
from vqtool.layers.lengths import spans_of
from vqtool.untrusted import arrays

Column = Any  # a tensor of numbers, or NumPy's array of names
LARGEST = 1e16  # of the values: sums of their squares are float32


ROLES: dict[str, FieldRole] = {"wave_": "wave", "scalar_": "scalar", "category_": "category", "extra_": "extra"}


class ArrayFiles(Files):
    """Files with the same keys and window length as the training data; where these have a `mask`, of any length."""

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """The arrays of an `.npy` or `.npz` as one piece."""
        columns = _columns(path, needs_x=not condition)
        batch: Batch = {}
        masked = bool(self.spec.named("mask"))
        for name, field in self.spec.fields.items():
            if condition and field.role == "signal":
                continue
            key = _key(name, field)
            if field.role == "mask" and key not in columns:
                if not condition:
                    columns[key] = torch.ones(columns["x"].shape[::2], dtype=torch.bool)  # every sample is real
                else:
                    continue
            if key not in columns:
                raise VqtoolError(f"`{path}` is missing the key `{key}`", hint="it has " + ", ".join(columns))
            value = _indices(columns[key], field.names, key, path) if field.role == "category" else columns[key]
            end = -1 if masked and field.role in ("signal", "wave", "mask") else None
            if value.ndim != len(field.shape) + 1 or tuple(value.shape[1:end]) != tuple(field.shape[:end]):
                raise VqtoolError(
                    f"`{key}` in `{path}` has rows of shape {tuple(value.shape[1:])}; the model knows "
                    f"{tuple(field.shape)}"
                )
            batch[name] = torch.as_tensor(value)
        yield Piece(batch)

    def save(self, path: Path, pieces: Iterator[Piece]) -> list[Path]:
        """An `.npz` with `x` and the conditions it belongs to, under the keys of the training file."""
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for name, value in Piece.joined(pieces).batch.items():
            field = self.spec.fields[name]
            category = field.role == "category"
            arrays[_key(name, field)] = np.array(field.names)[value.numpy()] if category else value.numpy()
        save_npz(path, arrays)
        return [path]


class Arrays(Data):
    """Rows of one file, split by a seeded permutation into train, valid and test.

    In an `.npz`, `x` is [n, L] or [n, C, L]; keys that begin with `wave_` are conditions [n, C, L] or [n, L],
    with `scalar_` conditions [n] or [n, k], with `category_` conditions [n] of names or whole numbers, with `extra_`
    numbers [n] or [n, k] for norms and losses that ask for them. `wave_current` is the field `current`, and so on.
    A `mask` [n, L] is true for the samples of a row that are real, one stretch of them; what is padded counts nowhere.
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
        found = _columns(path)
        named = _field_names(found)
        columns = {named[key]: value for key, value in found.items()}
        categories = {named[key]: _names(value) for key, value in found.items() if key.startswith("category_")}
        for name, names in categories.items():
            columns[name] = _indices(columns[name], names, name, path)
        n = len(columns["x"])
        if n < 5:
            raise VqtoolError(f"`{path}` has {n} rows; training, validation and test need at least 5 together")
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        test, valid = max(1, round(test_share * n)), max(1, round(valid_share * n))
        cut = {"test": order[:test], "valid": order[test : test + valid], "train": order[test + valid :]}
        batch = {name: torch.as_tensor(value) for name, value in columns.items()}
        self._rows = {name: TensorRows({k: v[where] for k, v in batch.items()}) for name, where in cut.items()}
        fields = {name: _field(key, batch[name], categories.get(name, ())) for key, name in named.items()}
        self.spec = DataSpec(fields, periodic=periodic)

    def rows(self, split: str) -> Rows:
        """The rows of a split."""
        return self._rows[split]


def _field_names(keys: Iterable[str]) -> dict[str, str]:
    """The field of each array: its key without the prefix that gives the role, unless two would have one name."""
    bare = {key: next((key.removeprefix(prefix) for prefix in ROLES if key.startswith(prefix)), key) for key in keys}
    return {key: name if list(bare.values()).count(name) == 1 else key for key, name in bare.items()}


def _key(name: str, field: Field) -> str:
    """The array of a field; a field of an older checkpoint has its prefix in its name."""
    prefix = next((prefix for prefix, role in ROLES.items() if role == field.role), "")
    return name if name.startswith(prefix) else prefix + name


def _field(key: str, value: Tensor, names: tuple[str, ...]) -> Field:
    role: FieldRole = next((role for prefix, role in ROLES.items() if key.startswith(prefix)), "signal")
    role = "mask" if key == MASK else role
    return Field(tuple(value.shape[1:]), role, names=names)


def _names(value: Column) -> tuple[str, ...]:
    return tuple(str(name) for name in np.unique(np.asarray(value)))


def _indices(value: Column, names: tuple[str, ...], key: str, path: Path) -> Tensor:
    """The index [n] of each row's name; refuses one that training did not see."""
    index = {name: at for at, name in enumerate(names)}
    texts = [str(name) for name in np.asarray(value).tolist()]
    unknown = sorted(set(texts) - set(index))
    if unknown:
        raise VqtoolError(f"`{key}` in `{path}` holds `{unknown[0]}`", hint="the model knows " + ", ".join(names))
    return torch.tensor([index[name] for name in texts])


def _columns(path: Path, *, needs_x: bool = True) -> dict[str, Column]:
    """The file's arrays as float32 tensors, checked; categories as they are."""
    found, names = arrays(path, lambda name: name in ("x", MASK) or name.startswith(tuple(ROLES)))
    columns: dict[str, Column] = {}
    if MASK in found:
        columns[MASK] = _mask(found.pop(MASK), found.get("x"), path)
    for name, array in {name or "x": array for name, array in found.items()}.items():
        if name.startswith("category_"):
            columns[name] = _category(name, array, path)
        else:
            columns[name] = _numbers(name, array, path, columns.get(MASK) if name.startswith(("x", "wave_")) else None)
    if needs_x and "x" not in columns:
        raise VqtoolError(
            f"`{path}` needs a key `x` of shape [n, C, L] or [n, L]", hint="it has " + (", ".join(names) or "no arrays")
        )
    if needs_x and (columns["x"].ndim != 3 or 0 in columns["x"].shape):
        shape = list(columns["x"].shape)
        raise VqtoolError(f"`x` in `{path}` has the shape {shape}, and not [n, C, L] or [n, L] as windows have")
    lengths = {name: len(value) for name, value in columns.items()}
    if len(set(lengths.values())) > 1:
        raise VqtoolError(f"the arrays of `{path}` differ in rows: {lengths}")
    return columns


def _category(name: str, array: Column, path: Path) -> Column:
    if array.ndim != 1 or array.dtype.kind not in "iubUS":
        raise VqtoolError(f"`{name}` in `{path}` should be [n] names or whole numbers", hint="one a row")
    return array.astype(str) if array.dtype.kind in "US" else array


def _mask(array: Column, x: Column | None, path: Path) -> Tensor:
    """Which samples are real [n, L]."""
    if array.ndim != 2 or array.dtype.kind not in "biu" or (x is not None and array.shape != (len(x), x.shape[-1])):
        shape = "" if x is None else f" [{len(x)}, {x.shape[-1]}]"
        raise VqtoolError(f"`{MASK}` in `{path}` should be true or false for every row and sample{shape}")
    mask = torch.from_numpy(np.ascontiguousarray(array, dtype=bool))
    try:
        spans_of(mask)
    except VqtoolError as error:
        raise VqtoolError(f"`{MASK}` in `{path}`: {error.message}", hint=error.hint) from error
    return mask


def _numbers(name: str, array: Column, path: Path, mask: Tensor | None = None) -> Tensor:
    """An array as float32, its rows first; a row of `scalar_` or `extra_` may be one number. Padding becomes zeros."""
    if array.dtype.kind in "US":
        raise VqtoolError(f"`{name}` in `{path}` holds text, not numbers")
    short = 1 if name.startswith(("scalar_", "extra_")) else 2
    if array.ndim < short:
        raise VqtoolError(f"`{name}` in `{path}` has the shape {array.shape}: its first axis should be the rows")
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and reported as such
        value = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    value = value.unsqueeze(1) if value.ndim == short else value
    if mask is not None and value.shape[::2] == mask.shape:
        value = value.masked_fill(~mask[:, None], 0)
    if not torch.isfinite(value).all():
        row = int((~torch.isfinite(value)).flatten(1).any(1).nonzero()[0])
        raise VqtoolError(f"`{name}` in `{path}` is NaN or infinite in row {row}", hint="drop or repair that row")
    largest = float(value.abs().max()) if value.numel() else 0.0
    if largest > LARGEST:
        raise VqtoolError(
            f"`{name}` in `{path}` reaches {largest:.3g}: its square is too large for float32",
            hint="scale the values",
        )
    return value
