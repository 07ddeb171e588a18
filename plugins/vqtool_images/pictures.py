"""Pictures and labels as people keep them, as bytes [n, C, H, W] and class numbers; what was assumed is reported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool.files import missing_file
from vqtool.untrusted import arrays
from vqtool_images.cifar import cifar_folder
from vqtool_images.idx import idx_array, idx_files
from vqtool_images.picture_folder import picture_folder
from vqtool_images.splits import PARTS, Report, made_split

Array = NDArray[Any]
IMAGES = {"images", "image", "imgs", "x", "data", "pictures", "features", "inputs"}
LABELS = {"labels", "label", "y", "target", "targets", "classes"}
CLASSES = ("classes", "class_names", "label_names", "target_names", "labels_names", "names")
CHANNELS = (1, 2, 3, 4)
KEYS = "numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...) has the usual names"


@dataclass(slots=True)
class Pictures:
    """One data set: uint8 [n, C, H, W] and int64 [n] by part (train, test and perhaps valid).

    Without labels there are no `classes`, and all labels are 0.
    """

    images: dict[str, Array]
    labels: dict[str, Array]
    classes: tuple[str, ...]
    notes: list[str] = field(default_factory=list)


def pictures(path: Path, size: int = 0, *, labelled: bool = True) -> Pictures:
    """The pictures of an .npz, of a folder with the files of MNIST or CIFAR, or of one with a folder for each class.

    Args:
        path: the file or folder.
        size: pixels each way that pictures of a folder are brought to; 0: as they are.
        labelled: read labels; without, pictures of a folder may lie anywhere in it, and arrays need no labels.

    Raises:
        VqtoolError: a file is missing, damaged, or the arrays do not fit together.
    """
    report = Report()
    names: Array | None = None
    if path.is_dir():
        files, cifar = idx_files(path), cifar_folder(path)
        if cifar is not None:
            found, names = cifar
        elif files:
            found = {key: idx_array(file) for key, file in files.items() if labelled or key.endswith("_images")}
        else:
            return _of_folder(path, size, report, labelled)
    else:
        found, names = archive(path, report, labelled)
    if size:
        raise VqtoolError("`data.size` is for folders of pictures alone", hint="leave it out", where=str(path))
    parts = sorted({key.split("_")[0] for key in found}, key=("train", "valid", "test").index)
    arrays_of = {part: found[f"{part}_images"] for part in parts}
    if not labelled:
        images = bytes_of(arrays_of, {}, path, report)
        return _whole(images, _no_labels(images), (), path, report)
    labels = {part: found[f"{part}_labels"] for part in parts}
    images = bytes_of(arrays_of, labels, path, report)
    numbers, classes = _numbers(labels, names, path, report)
    for part in parts:
        if numbers[part].shape != images[part].shape[:1]:
            raise VqtoolError(
                f"{len(images[part])} pictures of `{part}`, but labels of the shape {labels[part].shape}",
                where=str(path),
            )
    return _whole(images, numbers, classes, path, report)


def _no_labels(images: Mapping[str, Array]) -> dict[str, Array]:
    return {part: np.zeros(len(array), np.int64) for part, array in images.items()}


def _of_folder(path: Path, size: int, report: Report, labelled: bool) -> Pictures:
    images, named = picture_folder(path, size, report, labelled=labelled)
    if not labelled:
        return _whole(images, _no_labels(images), (), path, report)
    classes = tuple(sorted({name for names in named.values() for name in names}))
    place = {name: k for k, name in enumerate(classes)}
    numbers = {part: np.array([place[name] for name in names], np.int64) for part, names in named.items()}
    return _whole(images, numbers, classes, path, report)


def _whole(
    images: dict[str, Array], labels: dict[str, Array], classes: tuple[str, ...], path: Path, report: Report
) -> Pictures:
    """The parts, with a test part split off where there is none, and what is odd about the classes."""
    if len(classes) == 1:
        raise VqtoolError(f"all pictures in `{path.name}` have the one label `{classes[0]}`", where=str(path))
    if len({part.shape[1:] for part in images.values()}) > 1:
        raise VqtoolError("training and test pictures differ in size", where=str(path))
    if "test" not in images:
        keep, held = made_split(labels["train"].tolist(), report, "pictures", each="class" if classes else "")
        images["test"], labels["test"] = images["train"][held], labels["train"][held]
        images["train"], labels["train"] = images["train"][keep], labels["train"][keep]
    if classes:
        report.unseen_classes({part: [classes[k] for k in np.unique(known)] for part, known in labels.items()})
    return Pictures(images, labels, classes, report.notes)


def archive(path: Path, report: Report, labelled: bool = True) -> tuple[dict[str, Array], Array | None]:
    """Images and labels of each part from an .npz, by their usual names, and the names of the classes.

    Without labels, the images alone; then an .npy is read too.
    """
    if not path.is_file():
        raise missing_file(path, what="file or folder")
    _, names = arrays(path, lambda name: False)
    wanted = _roles(names)
    if not labelled:
        alone = {"train_images": names[0]} if len(names) == 1 else {}  # one array is what there is, whatever its name
        wanted = {key: name for key, name in wanted.items() if key.endswith("_images")} or alone
    for part in {key.split("_")[0] for key in wanted}:
        for what in ("images", "labels") if labelled else ():
            if f"{part}_{what}" not in wanted:
                other = wanted[f"{part}_{'labels' if what == 'images' else 'images'}"]
                raise VqtoolError(
                    f"`{path.name}` has `{other}`, but not `{part}_{what}`",
                    hint="it has " + ", ".join(names),
                    where=str(path),
                )
    if "train_images" not in wanted:
        have = "it has " + (", ".join(names) or "no arrays")
        raise VqtoolError(f"`{path}` does not have `train_images`, or `x_train`", hint=f"{have}; {KEYS}")
    if labelled and set(wanted.values()) != set(wanted):
        shown = ", ".join(f"`{name}`" for name in wanted.values())
        report.add(f"the arrays {shown} are read as {', '.join(wanted)}")
    classes = next((name for name in CLASSES if name in names and name not in wanted.values()), None)
    found, _ = arrays(path, lambda name: name in wanted.values() or name == classes)
    return {key: found[name] for key, name in wanted.items()}, found[classes] if labelled and classes else None


def _roles(names: list[str]) -> dict[str, str]:
    """`train_images`, `train_labels`, ... and the names of the arrays that hold them."""
    numbered = sorted((name for name in names if re.fullmatch(r"arr_\d+", name)), key=lambda name: int(name[4:]))
    if len(numbered) == len(names) and len(names) in (2, 4):
        keys = ("train_images", "train_labels", "test_images", "test_labels")
        return dict(zip(keys, numbered, strict=False))
    found: dict[str, str] = {}
    for name in names:
        words = re.split(r"[_\-. ]+", name.lower())
        parts = [PARTS[word] for word in words if word in PARTS]
        rest = [word for word in words if word not in PARTS]
        if len(parts) > 1 or len(rest) != 1 or (rest[0] == "classes" and not parts):
            continue
        for what, known in (("images", IMAGES), ("labels", LABELS)):
            if rest[0] in known:
                found.setdefault(f"{parts[0] if parts else 'train'}_{what}", name)
    return found


def bytes_of(images: Mapping[str, Array], labels: Mapping[str, Array], path: Path, report: Report) -> dict[str, Array]:
    """Pictures as uint8 [n, C, H, W], whatever their order of axes and their range."""
    placed = {part: _placed(part, array, len(labels.get(part, array)), path, report) for part, array in images.items()}
    if all(array.dtype == np.uint8 for array in placed.values()):
        return placed
    kinds = {part: str(array.dtype) for part, array in placed.items()}
    if len(set(kinds.values())) > 1:
        shown = ", ".join(f"{kind} in `{part}`" for part, kind in kinds.items())
        raise VqtoolError(
            f"the pictures are {shown}", hint="save all parts on one scale: as uint8, or as float", where=str(path)
        )
    low = min(float(array.min()) for array in placed.values())
    high = max(float(array.max()) for array in placed.values())
    if not np.isfinite([low, high]).all():
        raise VqtoolError("the pictures hold NaN or infinite values", where=str(path))
    if low < 0 and (low < -1.001 or high > 1.001):
        raise VqtoolError(
            f"the pictures have values from {low:.4g} to {high:.4g}, so it is not known what is black and white",
            hint="save them as uint8, or as shares of white in [0, 1]",
            where=str(path),
        )
    if high == low:
        raise VqtoolError("all pictures have the one value everywhere", where=str(path))
    if low < 0:
        base, span, said = -1.0, 2.0, "from -1 to 1"
    elif high <= 1:
        base, span, said = 0.0, 1.0, "from 0 to 1"
    elif 127 < high <= 255:
        base, span, said = 0.0, 255.0, "from 0 to 255"
    else:
        base, span, said = 0.0, high, f"from 0 to {high:g}, the largest there is,"
    report.add(f"pictures of {next(iter(images.values())).dtype} are taken as values {said} and kept as bytes")
    return {
        part: np.rint((array.astype(np.float64) - base) * (255 / span)).clip(0, 255).astype(np.uint8)
        for part, array in placed.items()
    }


def _placed(part: str, array: Array, count: int, path: Path, report: Report) -> Array:
    """An array of pictures as [n, C, H, W]."""
    if array.dtype.kind not in "fiub" or array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise VqtoolError(
            f"`{part}_images` has the shape {array.shape} of {array.dtype}; pictures are uint8 or float [n, H, W], "
            "[n, C, H, W] or [n, H, W, C]",
            where=str(path),
        )
    if array.shape[0] != count and array.shape[-1] == count and array.ndim > 2:
        array = np.moveaxis(array, -1, 0)
        report.add("the last axis of the pictures counts them")
    if array.ndim == 2:
        side = isqrt(array.shape[1])
        if side * side != array.shape[1]:
            raise VqtoolError(
                f"`{part}_images` has rows of {array.shape[1]} values, which are no square picture",
                hint="save them with their height and width: x.reshape(n, H, W)",
                where=str(path),
            )
        report.add(f"rows of {array.shape[1]} values are taken as pictures of {side} x {side}")
        array = array.reshape(-1, side, side)
    if array.ndim == 3:
        return array[:, None]
    if array.shape[3] in CHANNELS and array.shape[1] not in CHANNELS:
        report.add(f"pictures of the shape {array.shape[1:]} are taken as height, width and {array.shape[3]} channels")
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    return array


def _numbers(
    labels: Mapping[str, Array], names: Array | None, path: Path, report: Report
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Labels as class numbers, and the names of the classes; labels may be numbers, text or one-hot rows."""
    flat = {part: _flat(part, array, path, report) for part, array in labels.items()}
    every = np.concatenate(list(flat.values()))
    if every.dtype.kind in "US":
        values, at = np.unique(every.astype(str), return_inverse=True)
        classes = tuple(values.tolist())
    else:
        if every.dtype.kind == "f" and not (np.isfinite(every).all() and (every == np.rint(every)).all()):
            raise VqtoolError("the labels are not whole numbers", hint="classes are 0, 1, 2, ...", where=str(path))
        at = every.astype(np.int64)
        if at.min() < 0:
            raise VqtoolError("a label is negative", where=str(path))
        if names is not None and len(names) <= at.max():
            raise VqtoolError(f"there are {len(names)} names in `classes`, but a label {at.max()}", where=str(path))
        if names is None:
            values, at = np.unique(at, return_inverse=True)
            classes = tuple(map(str, values.tolist()))
        else:
            classes = tuple(names.astype(str).tolist())
    ends = np.cumsum([len(array) for array in flat.values()])[:-1]
    return dict(zip(flat, np.split(at.astype(np.int64), ends), strict=True)), classes


def _flat(part: str, array: Array, path: Path, report: Report) -> Array:
    if array.ndim == 2 and 1 in array.shape:
        return array.reshape(-1)
    zeros_and_ones = array.ndim == 2 and array.dtype.kind in "fiub" and ((array == 0) | (array == 1)).all()
    if zeros_and_ones and (array.sum(1) == 1).all():
        report.add(f"labels of {array.shape[1]} columns are taken as one-hot")
        return array.argmax(1)
    if array.ndim != 1:
        raise VqtoolError(
            f"`{part}` has labels of the shape {array.shape}; one for each picture is read", where=str(path)
        )
    return array
