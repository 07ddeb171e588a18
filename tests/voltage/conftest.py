"""Synthetic windings that keep the law exactly, and the bundled measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vqtool_voltage.data.magnet import Magnet

SAMPLE = Path(__file__).parents[2] / "recipes" / "data" / "magnet_mc1_128.npz"
MADE = {"soft": 1e-4, "stiff": 3e-4}  # henry


def winding(n: int = 40, length: int = 32, seed: int = 0) -> dict[str, np.ndarray]:
    """Columns of `n` made-up pairs with v = -M dI/dt exactly, three harmonics, two materials."""
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(5e4, 4e5, n)
    material = np.array(list(MADE))[np.arange(n) % 2]
    order = np.arange(1, 4)
    amplitude = rng.normal(size=(n, 3)) / order + 1j * rng.normal(size=(n, 3)) / order
    wave = np.exp(2j * np.pi * order[:, None] * np.arange(length) / length)
    inductance = np.array([MADE[name] for name in material])
    slope = (amplitude * 2j * np.pi * order * frequency[:, None]) @ wave
    mask = np.zeros(n, dtype=bool)
    mask[::4] = True
    return {
        "v": (-inductance[:, None] * slope.real).astype(np.float32),
        "i_p": (amplitude @ wave).real.astype(np.float32),
        "freq_hz": frequency,
        "temp_c": rng.choice([25.0, 90.0], n),
        "material": material,
        "test_random": mask,
        "test_temp_90c": ~mask,
        "phase_roll": rng.integers(0, length, n),
    }


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """Writes the columns of `winding` to a file, with any of them replaced, or left out where given as None."""

    def write(name: str = "made.npz", **change: np.ndarray | None) -> Path:
        columns = winding() | change
        np.savez(tmp_path / name, **{key: value for key, value in columns.items() if value is not None})
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def sample() -> Magnet:
    """The bundled measurements, random split, random-phase track."""
    return Magnet(path=SAMPLE)
