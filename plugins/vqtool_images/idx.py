"""The IDX format of MNIST and its kin: a folder with images and labels of training and test, gzipped or not."""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError

PACKED = 1032  # gzip unpacks a file to at most so many times its size
NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
PATTERN = re.compile(r"(?:^|.*[-_])(train|t10k|test)[-_.](images|labels)[-_.]idx\d(?:[-_.]ubyte)?(?:\.gz)?")


def idx_files(folder: Path) -> dict[str, Path]:
    """The four files by what they hold; empty where there are none, an error where some are missing.

    Names as of MNIST, also with a dot (`train-images.idx3-ubyte`) or with something before them, as those of EMNIST.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), reverse=True):  # of a file and its .gz the packed one
        matched = PATTERN.fullmatch(path.name)
        if matched and path.is_file():
            key = f"{'train' if matched[1] == 'train' else 'test'}_{matched[2]}"
            other = found.setdefault(key, path)
            if _stem(other) != _stem(path):
                raise VqtoolError(
                    f"`{folder}` holds both `{path.name}` and `{other.name}`",
                    hint="put the four files of one data set in a folder of their own",
                )
    missing = [name for key, name in NAMES.items() if key not in found]
    if found and missing:
        raise VqtoolError(f"`{folder}` has no `{missing[0]}.gz`", hint="a folder needs: " + ", ".join(NAMES.values()))
    return found


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz")


def idx_array(path: Path) -> NDArray[np.uint8]:
    """An IDX file of bytes: two zeros, the type 8, the number of axes, their lengths (big-endian), the bytes."""
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
