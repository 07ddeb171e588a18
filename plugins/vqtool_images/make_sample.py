"""Make the sample data of the recipe: the first pictures of each class of four IDX files, as one .npz file.

python -m vqtool_images.make_sample FOLDER OUT.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from vqtool_images.pictures import pictures

TRAIN, TEST = 1050, 250  # pictures of each class
CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first `count` of each class, in the order of the file."""
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in np.unique(labels)]))


def main(folder: Path, out: Path) -> None:
    """Write the sample; pictures that occur in both parts are left out of the test part."""
    whole = pictures(folder)
    images, labels = whole.images, whole.labels
    train = first_of_each(labels["train"], TRAIN)
    known = {image.tobytes() for image in images["train"]}
    fresh = np.array([image.tobytes() not in known for image in images["test"]])
    test = first_of_each(np.where(fresh, labels["test"], -1), TEST)
    test = test[fresh[test]]
    np.savez_compressed(
        out,
        train_images=images["train"][train, 0],
        train_labels=labels["train"][train].astype(np.uint8),
        test_images=images["test"][test, 0],
        test_labels=labels["test"][test].astype(np.uint8),
        classes=np.array(CLASSES),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
