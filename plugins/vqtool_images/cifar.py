"""The binary version of CIFAR-10 and CIFAR-100: records of label bytes and a coloured picture of 32 x 32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
TRAIN, TEST = ("data_batch_*.bin", "train.bin"), ("test_batch.bin", "test.bin")
NAMES = ("batches.meta.txt", "fine_label_names.txt")  # of CIFAR-10 and of CIFAR-100
INNER = ("cifar-10-batches-bin", "cifar-100-binary", "cifar-10-batches-py", "cifar-100-python")  # as archives unpack
PICKLES = ("data_batch_1", "train")  # of the version for Python
Array = NDArray[np.uint8]


def cifar_folder(folder: Path) -> tuple[dict[str, Array], NDArray[np.str_] | None] | None:
    """Images [n, 3, 32, 32] and labels [n] of each part, and the names of classes; None where the folder has no such.

    Raises:
        VqtoolError: the test or the training part is missing, a file is damaged, or it is the version of pickles.
    """
    folder = next((folder / name for name in INNER if (folder / name).is_dir()), folder)
    files = {"train": _listed(folder, TRAIN), "test": _listed(folder, TEST)}
    if not any(files.values()):
        pickled = [name for name in (*PICKLES, "batches.meta", "meta") if (folder / name).is_file()]
        if len(pickled) > 1:
            raise VqtoolError(
                f"`{folder}` holds Python pickles, which vqtool never reads",
                hint="the binary version (cifar-10-binary.tar.gz) has the same pictures as data_batch_1.bin, ...",
            )
        return None
    missing = next((part for part, found in files.items() if not found), None)
    if missing is not None:
        names = " or ".join(TRAIN if missing == "train" else TEST)
        raise VqtoolError(f"`{folder}` has no `{names}`", hint="unpack the whole of the binary version there")
    found: dict[str, Array] = {}
    for part, paths in files.items():
        read = [cifar_file(path) for path in paths]
        found[f"{part}_images"] = np.concatenate([images for images, _ in read])
        found[f"{part}_labels"] = np.concatenate([labels for _, labels in read])
    return found, _names(folder)


def _listed(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())


def cifar_file(path: Path) -> tuple[Array, Array]:
    """Images [n, 3, 32, 32] and labels [n] of one file; of two label bytes (CIFAR-100) the second, finer one."""
    content = np.fromfile(path, np.uint8)
    for labels in (1, 2):
        if len(content) and len(content) % (PIXELS + labels) == 0:
            rows = content.reshape(-1, PIXELS + labels)
            return rows[:, labels:].reshape(-1, *SHAPE), rows[:, labels - 1]
    raise VqtoolError(
        f"`{path}` is not a file of CIFAR's binary version, or is cut short: it has {len(content)} bytes",
        hint=f"a record has 1 or 2 bytes of labels and {PIXELS} of a picture",
    )


def _names(folder: Path) -> NDArray[np.str_] | None:
    """The names of the classes, a line each."""
    path = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if path is None:
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    names = [line.strip() for line in lines if line.strip()]
    return np.array(names) if names else None
