"""JSON, TOML and NumPy's arrays from anybody: within bounds, and each fault one error that names it."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.fuzz.formats import bomb
from vqtool.errors import VqtoolError
from vqtool.untrusted import DEEPEST, arrays, json_value, no_twins, read_json, toml_table


def everything(name: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested deeper"),
        ("[" * 500 + "]" * 500, "nested deeper"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested deeper"),
        ("7" * 5000, "5000 digits"),
        ("-" + "9" * 20, "64 bits"),
        ("{", "Expecting"),
        (b"\xff{}", "utf-8"),
        ("", "Expecting"),
    ],
)
def test_json_that_is_not_a_value_of_ours(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        json_value(text)
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(VqtoolError, match=r"`.*a\.json` is damaged: "):
        read_json(tmp_path / "a.json")


def test_json_that_is() -> None:
    value = {"a": [1, -(2**63), 2.5, None, "x"], "b": {}, "c": True}
    assert json_value(json.dumps(value)) == value
    deep = "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)
    assert json_value(deep) == json.loads(deep)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "[" * 300 + "]" * 300,
        "a = " + "{a = " * 300 + "1" + "}" * 300,
        ".".join(["a"] * 20_000) + " = 1",
        "[" + ".".join(["a"] * 20_000) + "]",
        "a = " + "7" * 5000,
        "a = 0x" + "f" * 5000,
    ],
)
def test_toml_bombs_are_one_error_and_take_no_memory(text: str) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"nested deeper|parts|64 bits") as caught:
        toml_table(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(str(caught.value)) < 200
    assert peak < 50e6


def test_toml_that_is_a_table() -> None:
    text = 'a.b = 1\n[c]\nd = [0.1, 0.2]\ne = "x.y.z"\n' + "f = [" + "0.5, " * 500 + "]"
    assert toml_table(text)["c"]["e"] == "x.y.z"


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    no_twins(["a", "b", "", ""], tmp_path)
    with pytest.raises(VqtoolError, match=r"two columns of `t\.csv` are called `a`"):
        no_twins(["a", "b", "a"], tmp_path / "t.csv")


def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path) -> None:
    made = {"x": np.arange(6.0).reshape(2, 3), "n": np.array(["a", "bc"]), "b": np.array([True]), "f": np.zeros((0, 3)),
            "order": np.asfortranarray(np.arange(6).reshape(2, 3)), "scalar": np.array(3.5),
            "big": np.arange(3, dtype=">i2"), "left": np.array([1j])}  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **made)
        found, names = arrays(tmp_path / "a.npz", lambda name: name != "left")
        assert names == list(made)
        assert list(found) == list(made)[:-1]
        for name, array in found.items():
            np.testing.assert_array_equal(array, made[name])
            assert array.dtype == made[name].dtype
    np.save(tmp_path / "a.npy", made["x"])
    np.testing.assert_array_equal(arrays(tmp_path / "a.npy", everything)[0][""], made["x"])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1j]), "complex numbers"),
        (np.array(["2020-01-01"], "M8[D]"), "dates"),
        (np.array([1], "m8[s]"), "time differences"),
        (np.array([None, 1]), "Python objects"),
        (np.array([(1, 2.0)], "i4,f4"), "records"),
    ],
)
def test_arrays_of_other_things_are_refused_by_name(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "a.npz", x=array)
    with pytest.raises(VqtoolError, match=f"`x` in `a.npz` holds {message}") as caught:
        arrays(tmp_path / "a.npz", everything)
    assert caught.value.hint
    assert "pickle=" not in caught.value.message + caught.value.hint


def headed(header: str, data: bytes = b"") -> bytes:
    head = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data


@pytest.mark.parametrize(
    "content",
    [
        headed("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"),
        headed("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1099511627776), }", bytes(100)),
        headed("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", bytes(100)),
        headed("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 0, 1099511627776), }")[:40],
        headed("{'descr': '|U0', 'fortran_order': False, 'shape': (1099511627776,), }"),
        headed("{" * 4000),
        headed("(" * 30_000),
        headed("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }"),
        b"\x93NUMPY\x03\x00",
        b"\x93NUMPY",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_promises_too_much_or_nothing(tmp_path: Path, content: bytes, packed: bool) -> None:
    path = tmp_path / ("a.npz" if packed else "a.npy")
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(VqtoolError, match=r"`a\.np.` is damaged: (the header of )?(`x`|the array)") as caught:
        arrays(path, everything)
    assert caught.value.exit_code == 2


def test_an_npz_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.savez(whole, x=np.zeros((4, 8), np.float32))
    (tmp_path / "a.npz").write_bytes(bomb(whole.getvalue(), Random(0)))
    tracemalloc.start()
    with pytest.raises(VqtoolError, match=r"`x` in `a.npz` unpacks to 2.1 GB"):
        arrays(tmp_path / "a.npz", everything)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_arrays_of_one_name(tmp_path: Path) -> None:
    part = io.BytesIO()
    np.save(part, np.zeros(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", part.getvalue())
        archive.writestr("x.npy", part.getvalue())
    with pytest.raises(VqtoolError, match="two arrays called `x`"):
        arrays(tmp_path / "a.npz", everything)
