"""The tensors of every kind of file: lazily, without torch where it is not needed, and never a pickle."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import vqtool
from tests.foreign import made
from tests.test_no_code_from_files import Payload
from tests.test_startup import loaded_after
from vqtool.errors import VqtoolError
from vqtool.foreign.tensors import needs_code, tensors_in, tensors_of

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", TYPES)
def test_safetensors_of_every_type(dtype: torch.dtype, tmp_path: Path) -> None:
    value = (torch.arange(12).reshape(3, 4) % 5).to(dtype)
    save_file({"a": value, "b": torch.zeros(2), "empty": torch.zeros(0, 3)}, tmp_path / "m.safetensors")
    read = tensors_of(tmp_path / "m.safetensors")
    assert read["a"].shape == (3, 4)
    assert read["empty"].read().shape == (0, 3)
    assert read["a"].is_float == dtype.is_floating_point
    np.testing.assert_array_equal(read["a"].read().astype(np.float64), value.double().numpy())


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_with_tables_in_tables(legacy: bool, tmp_path: Path) -> None:
    state = {"epoch": 3, "state_dict": {"q.embed": torch.ones(4, 2, dtype=torch.bfloat16)}, "list": [torch.zeros(3)]}
    torch.save(state, tmp_path / "m.ckpt", _use_new_zipfile_serialization=not legacy)
    read = tensors_of(tmp_path / "m.ckpt")
    assert {name: s.shape for name, s in read.items()} == {"state_dict.q.embed": (4, 2), "list.0": (3,)}
    assert read["state_dict.q.embed"].dtype == "BF16"
    assert read["state_dict.q.embed"].read().sum() == 8


def test_numpy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    assert tensors_of(tmp_path / "a.npy")[""].dtype == "I64"
    np.savez_compressed(tmp_path / "b.npz", x=np.ones((4, 2), np.float16), y=np.arange(3))
    read = tensors_of(tmp_path / "b.npz")
    assert {name: (s.dtype, s.shape) for name, s in read.items()} == {"x": ("F16", (4, 2)), "y": ("I64", (3,))}
    np.testing.assert_array_equal(read["y"].read(), np.arange(3))


def test_objects_in_an_npz_are_listed_and_never_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x=np.ones(3), o=np.array([Payload(tmp_path / "MARK")], dtype=object))
    read = tensors_of(tmp_path / "b.npz")
    assert read["o"].dtype == "OBJECT"
    with pytest.raises(VqtoolError, match="holds Python objects"):
        read["o"].read()
    assert not (tmp_path / "MARK").exists()


def test_modules_and_state_dicts() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3))
    module.register_buffer("counts", torch.ones(4), persistent=False)
    assert set(tensors_in(module)) == {"0.weight", "0.bias", "counts"}
    assert set(tensors_in({"a": {"b": np.ones(2)}, "c": 3})) == {"a.b"}


def test_values_of_every_kind_of_torch_tensor() -> None:
    values = torch.eye(4)
    for tensor in (values.to(torch.float8_e4m3fn), values.bfloat16(), values.to_sparse(), values.requires_grad_()):
        np.testing.assert_array_equal(tensors_in({"a": tensor})["a"].read(), np.eye(4))
    with pytest.raises(VqtoolError, match="the values of `a`"):
        tensors_in({"a": torch.empty(2, 2, device="meta")})["a"].read()


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pt"])
def test_damaged_files_are_one_error_or_are_read(ending: str, tmp_path: Path) -> None:
    state, path, draw = made.encodec(1), tmp_path / f"m.{ending}", Random(0)
    tensors = {name: torch.tensor(value) for name, value in state.items()}
    if ending == "npz":
        np.savez_compressed(path, **state)  # type: ignore[arg-type]  # arrays by name
    else:
        (save_file if ending == "safetensors" else torch.save)(tensors, path)
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(draw.choice([1, 5, 40])):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content[: draw.choice([len(content), draw.randrange(len(content))])])
        try:
            str(vqtool.diagnose(path))
        except VqtoolError:
            refused += 1
    assert refused > 0


class Folder:
    """A model's folder, as transformers saves it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)

    def save(self, name: str, **tensors: Any) -> None:
        save_file({key: torch.ones(value) for key, value in tensors.items()}, self.path / name)

    def index(self, places: object, name: str = "model.safetensors.index.json") -> None:
        (self.path / name).write_text(json.dumps({"weight_map": places}))


def test_folders_in_one_file_or_several(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "m")
    folder.save("model.safetensors", a=2)
    folder.save("other.safetensors", b=2)
    assert set(tensors_of(folder.path)) == {"a"}
    folder.index({"a": "model.safetensors", "b": "other.safetensors"})
    assert set(tensors_of(folder.path)) == {"a", "b"}


def test_folders_that_leave_it_open(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "m")
    with pytest.raises(VqtoolError, match="holds no file of weights"):
        tensors_of(folder.path)
    Folder(folder.path / "vae").save("diffusion_pytorch_model.safetensors", a=2)
    with pytest.raises(VqtoolError) as raised:
        tensors_of(folder.path)
    assert str(folder.path / "vae") in str(raised.value.hint)
    folder.save("one.safetensors", a=2)
    assert set(tensors_of(folder.path)) == {"a"}
    folder.save("two.safetensors", a=2)
    with pytest.raises(VqtoolError, match="2 files of weights"):
        tensors_of(folder.path)


@pytest.mark.parametrize("place", ["../secret.safetensors", "/etc/passwd", 3, ""])
def test_an_index_names_files_of_its_own_folder_alone(place: object, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "m")
    Folder(tmp_path).save("secret.safetensors", a=2)
    folder.index({"a": place})
    with pytest.raises(VqtoolError, match="should name files of the same folder"):
        tensors_of(folder.path)


def test_a_pickle_that_needs_code_is_refused_with_the_line_that_converts_it(tmp_path: Path) -> None:
    mark = tmp_path / "MARK"
    path = tmp_path / "m.pt"
    torch.save({"state_dict": {"q.embed": torch.ones(4, 2)}, "run": Payload(mark)}, path)
    with pytest.raises(VqtoolError, match="reading it could run any code") as raised:
        tensors_of(path)
    assert not mark.exists()
    line = str(raised.value.hint).partition(": ")[2]
    done = subprocess.run(line.replace("python ", f"{sys.executable} ", 1), shell=True, cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert mark.exists()  # the user's own choice, in the user's own shell
    assert set(tensors_of(tmp_path / "m.safetensors")) == {"q.embed"}


def test_plain_pickles_are_refused(tmp_path: Path) -> None:
    for protocol in (0, 2, 4):
        (tmp_path / "m.pt").write_bytes(pickle.dumps(Payload(tmp_path / "MARK"), protocol))
        with pytest.raises(VqtoolError):
            tensors_of(tmp_path / "m.pt")
    assert not (tmp_path / "MARK").exists()
    assert "weights_only" in str(needs_code(tmp_path / "m.pt").hint)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"PK\x03\x04" + b"x" * 50, b"\x93NUMPYx", b"\x80\x02x"])
def test_other_files_are_one_error(content: bytes, tmp_path: Path) -> None:
    for name in ("f", "f.pt", "f.safetensors", "f.npz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VqtoolError):
            tensors_of(tmp_path / name)


def test_a_cut_file_is_said_to_be_truncated(tmp_path: Path) -> None:
    save_file({"a": torch.ones(100)}, tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(whole[:-40])
    with pytest.raises(VqtoolError, match="40 bytes are missing"):
        tensors_of(tmp_path / "m.safetensors")


def test_what_is_not_asked_for_is_not_read(tmp_path: Path) -> None:
    """A file of 4 GB, most of it a hole, with a codebook at its end."""
    many, path = 2**30, tmp_path / "big.safetensors"
    head = {"big": {"dtype": "F32", "shape": [many], "data_offsets": [0, 4 * many]},
            "vq.codebook": {"dtype": "F32", "shape": [8, 2], "data_offsets": [4 * many, 4 * many + 64]}}  # fmt: skip
    text = json.dumps(head).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.seek(8 + len(text) + 4 * many)
        file.write(np.arange(16, dtype="<f4").tobytes())
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)); import vqtool; "
    code = f"{limit}assert vqtool.diagnose({str(path)!r}).codebooks[0].vectors.sum() == 120"
    assert loaded_after(code, "torch") == set()
