"""Pictures and labels from files: the IDX format of MNIST, gzipped or not, or one NumPy archive."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool.untrusted import arrays

Columns = dict[str, NDArray[np.generic]]
PACKED = 1032  # gzip unpacks a file to at most so many times its size
NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def pictures(path: Path) -> Columns:
    """`train_images`, `test_images` uint8 [n, C, H, W], `train_labels`, `test_labels` int64 [n], and `classes` (names).

    `path` is a folder with four IDX files named like those of MNIST, or an .npz file with these keys (images [n, H, W]
    or [n, C, H, W]; `classes` is optional).

    Raises:
        VqtoolError: a file is missing, damaged, or the arrays do not fit together.
    """
    found = _folder(path) if path.is_dir() else _archive(path)
    columns: Columns = {}
    for part in ("train", "test"):
        images, labels = found[f"{part}_images"], found[f"{part}_labels"]
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
            raise VqtoolError(
                f"`{part}_images` has the shape {images.shape} of {images.dtype}; pictures are uint8 [n, H, W] or "
                "[n, C, H, W]",
                where=str(path),
            )
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise VqtoolError(
                f"{len(images)} pictures of `{part}`, but labels of the shape {labels.shape}", where=str(path)
            )
        columns[f"{part}_images"] = images if images.ndim == 4 else images[:, None]
        columns[f"{part}_labels"] = labels.astype(np.int64)
    seen = [columns["train_labels"], columns["test_labels"]]
    count = 1 + max(int(labels.max()) for labels in seen)
    if min(int(labels.min()) for labels in seen) < 0:
        raise VqtoolError("a label is negative", where=str(path))
    names = found.get("classes", np.array([str(i) for i in range(count)]))
    if len(names) < count:
        raise VqtoolError(f"there are {len(names)} names in `classes`, but a label {count - 1}", where=str(path))
    if columns["train_images"].shape[1:] != columns["test_images"].shape[1:]:
        raise VqtoolError("training and test pictures differ in size", where=str(path))
    return columns | {"classes": names.astype(str)}


def _folder(path: Path) -> Columns:
    return {key: _idx(path, name) for key, name in NAMES.items()}


def _idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """An IDX file of bytes: two zeros, the type 8, the number of axes, their lengths (big-endian), the bytes."""
    path = next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
    if path is None:
        raise VqtoolError(f"`{folder}` has no `{name}.gz`", hint="a folder needs: " + ", ".join(NAMES.values()))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _bytes(file, path)
    except (OSError, EOFError, zlib.error) as error:
        raise VqtoolError(f"`{path}` is damaged: {error}", hint="copy or fetch it again") from error


def _bytes(file: io.BufferedIOBase, path: Path) -> NDArray[np.uint8]:
    """The array of an open IDX file; never unpacks more than the header says or than the file can hold."""
    head = file.read(4)
    axes = head[3] if len(head) == 4 else 0
    lengths = file.read(4 * axes)
    if head[:3] != b"\0\0\x08" or len(lengths) != 4 * axes:
        raise VqtoolError(f"`{path}` is not an IDX file of bytes, or is cut short")
    shape = tuple(int(n) for n in np.frombuffer(lengths, ">u4"))
    size = math.prod(shape)
    if size > PACKED * path.stat().st_size or len(content := file.read(size)) < size or file.read(1):
        raise VqtoolError(
            f"`{path}` is damaged: it does not hold the {size} bytes of its header", hint="copy or fetch it again"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _archive(path: Path) -> Columns:
    if not path.is_file():
        raise VqtoolError(f"there is no file or folder `{path}`")
    found, names = arrays(path, lambda name: name in NAMES or name == "classes")
    missing = sorted(NAMES.keys() - found.keys())
    if missing:
        raise VqtoolError(
            f"`{path}` does not have {', '.join(f'`{key}`' for key in missing)}",
            hint="it has " + (", ".join(names) or "no arrays"),
        )
    return found
