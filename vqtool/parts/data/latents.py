"""Latents that an encoder of one's own gave: a NumPy array of vectors, in windows of a few tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_doc import Doc
from annotated_types import Interval
from torch import Tensor

from vqtool.api import Data, DataSpec, Field, Files, Piece, Rows, TensorRows
from vqtool.errors import VqtoolError
from vqtool.files import save_npz
from vqtool.untrusted import arrays

WINDOW = 32  # tokens of a row: quantizers code each by itself, and rows of a few mix well
FEW = 10  # recordings; of fewer the windows are split, not the recordings
LARGEST = 1e16  # of the values: sums of their squares are float32
Layout = Annotated[
    Literal["NDT", "NTD", "NDHW", "NHWD", "ND"],
    Doc("axes of the array: N recordings, D features, the others are tokens"),
]


class LatentFiles(Files):
    """Arrays of latents with the model's width."""

    def __init__(self, spec: DataSpec, options: Any = None, asked: Any = None) -> None:
        super().__init__(spec)
        self.layout = str({**(options or {}), **(asked or {})}.get("layout", "NDT"))

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """The array as one piece."""
        if condition:
            yield from super().open(path, condition=True)
        x = latents(path, self.layout)
        if x.shape[1] != self.spec.channels:
            raise VqtoolError(
                f"`{path}` has {x.shape[1]} features by the layout {self.layout}; the model knows {self.spec.channels}",
                hint="-s data.layout=NTD, where the features are the last axis",
            )
        yield Piece({"x": x})

    def save(self, path: Path, pieces: Iterator[Piece]) -> list[Path]:
        """An `.npz` with `x` [N, D, T]."""
        save_npz(path, {"x": Piece.joined(pieces).batch["x"].numpy()})
        return [path]


class Latents(Data):
    """Latents from an `.npy`, or the key `x` of an `.npz`, in rows of up to 32 tokens.

    Recordings are split by a seeded permutation into train, valid and test, or the rows where there are few.
    """

    splits = ("train", "valid", "test")
    files = LatentFiles

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("an .npy or .npz file")],
        layout: Layout = "NDT",
        valid_share: Annotated[float, Interval(gt=0, lt=1), Doc("share of the rows for validation")] = 0.1,
        test_share: Annotated[float, Interval(gt=0, lt=1), Doc("share of the rows held out")] = 0.1,
        seed: Annotated[int, Doc("of the split")] = 0,
    ) -> None:
        whole = latents(path, layout)
        window = min(WINDOW, whole.shape[2])
        rows = whole.unfold(2, window, window).transpose(1, 2)  # [N, windows, D, W]
        if rest := whole.shape[2] % window:
            self.notes = (f"the last {rest} of {whole.shape[2]} tokens of each recording are left out: rows have "
                          f"{window}",)  # fmt: skip
        rows = rows if len(rows) >= FEW else rows.flatten(0, 1)[:, None]
        n = len(rows)
        test, valid = max(1, round(test_share * n)), max(1, round(valid_share * n))
        if n - test - valid < 1:
            raise VqtoolError(f"`{path}` has {n} rows of {window} tokens: too few to train, validate and test on",
                              hint="give more recordings, or longer ones")  # fmt: skip
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        cut = {"test": order[:test], "valid": order[test : test + valid], "train": order[test + valid :]}
        self._rows = {name: TensorRows({"x": rows[at].flatten(0, 1)}) for name, at in cut.items()}
        self.spec = DataSpec({"x": Field((whole.shape[1], window), "signal")})

    def rows(self, split: str) -> Rows:
        """The rows of a split."""
        return self._rows[split]


def latents(path: Path, layout: str) -> Tensor:
    """A file's latents [N, D, T] as float32.

    Raises:
        VqtoolError: the array has other axes, holds no numbers, or some that are not finite.
    """
    found, names = arrays(path, lambda name: name == "x" or not name)
    array = next(iter(found.values()), None)
    if array is None:
        raise VqtoolError(f"`{path}` needs a key `x`", hint="it has " + (", ".join(names) or "no arrays"))
    if array.ndim != len(layout) or 0 in array.shape or array.dtype.kind not in "fiu":
        raise VqtoolError(f"`{path}` is {array.dtype}{list(array.shape)}, not latents of the layout {layout}",
                          hint="another layout: NDT, NTD, NDHW, NHWD or ND")  # fmt: skip
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and reported as such
        x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    finite = x.isfinite() & (x.abs() <= LARGEST)
    if not bool(finite.all()):
        row = int((~finite).flatten(1).any(1).nonzero()[0])
        raise VqtoolError(f"`{path}` is NaN, infinite or larger than {LARGEST:g} in row {row}",
                          hint="drop or repair that row")  # fmt: skip
    return arranged(x, layout)


def arranged(x: Tensor, layout: str) -> Tensor:
    """Latents of a layout as [N, D, T]."""
    if layout == "ND":
        return x.t()[None]
    return x.movedim(layout.index("D"), 1).flatten(2)
