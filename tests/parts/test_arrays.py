"""The data `arrays`: what is not a real number within float32 is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vqtool.errors import VqtoolError
from vqtool.parts.data.arrays import Arrays

X = np.sin(np.arange(20)[:, None] + np.arange(16)).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X * 1j}, "`x` in `a.npz` holds complex numbers"),
        ({"x": X.astype("M8[s]")}, "`x` in `a.npz` holds dates"),
        ({"x": X.astype(object)}, "`x` in `a.npz` holds Python objects"),
        ({"x": X.astype(str)}, "`x` in `.*` holds text"),
        ({"x": X[0]}, r"`x` in `.*` has the shape \(16,\): its first axis should be the rows"),
        ({"x": X.reshape(20, 1, 4, 4)}, r"`x` in `.*` has the shape \[20, 1, 4, 4\], and not \[n, C, L\] or \[n, L\]"),
        ({"x": X.astype(float) * 1e30}, "`x` in `.*` reaches 1e\\+30"),
        ({"x": X.astype(float) * 1e300}, "`x` in `.*` is NaN or infinite in row 0"),
        ({"wave_u": X * 1j}, "`wave_u` in `a.npz` holds complex numbers"),
        ({"scalar_f": np.where(np.arange(20) == 7, np.nan, 1.0)}, "`scalar_f` in `.*` is NaN or infinite in row 7"),
        ({"scalar_f": np.float32(3)}, r"`scalar_f` in `.*` has the shape \(\)"),
    ],
)
def test_each_array_that_is_read_is_checked(tmp_path: Path, change: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **{"x": X, **change})
    with pytest.raises(VqtoolError, match=message) as caught:
        Arrays(path=tmp_path / "a.npz")
    assert caught.value.exit_code == 2


def test_arrays_that_are_not_read_may_be_anything(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, note=np.array(["a", None], dtype=object), phasor=X * 1j)
    assert len(Arrays(path=tmp_path / "a.npz").rows("train")) == 14
    np.save(tmp_path / "a.npy", X)
    assert len(Arrays(path=tmp_path / "a.npy").rows("train")) == 14
    np.save(tmp_path / "a.npy", X.reshape(20, 1, 4, 4))
    with pytest.raises(VqtoolError, match=r"has the shape \[20, 1, 4, 4\]"):
        Arrays(path=tmp_path / "a.npy")
