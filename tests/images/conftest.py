"""Small pictures that can be distinguished: a bright bar at a place of its own for every class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


def columns(train: int = 160, test: int = 40, classes: int = 4, side: int = 8) -> dict[str, np.ndarray]:
    """What `pictures` reads, made up."""
    rng = np.random.default_rng(0)
    found = {}
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        images = rng.integers(0, 60, (count, side, side))
        for row, label in enumerate(labels):
            images[row, 2 * label : 2 * label + 2] += 150
        found |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels.astype(np.uint8)}
    return found


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Writes the columns to an npz, with any of them replaced, or left out where given as None."""

    def write(**change: np.ndarray | None) -> Path:
        found = columns() | change
        path = tmp_path / "pictures.npz"
        np.savez(path, **{key: value for key, value in found.items() if value is not None})
        return path

    return write
