"""The tensors of any file: names, shapes and dtypes at once, values of those alone that are asked for."""

from __future__ import annotations

import math
import shlex
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqtool.errors import VqtoolError
from vqtool.files import missing_file
from vqtool.forms import damaged
from vqtool.model.format import BYTES, read_table
from vqtool.untrusted import NUMPY, ZIP, array_headers, arrays, read_json

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
TYPES = {"BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "BF16": "<u2", "I32": "<i4",
         "U32": "<u4", "F32": "<f4", "I64": "<i8", "U64": "<u8", "F64": "<f8"}  # fmt: skip
WEIGHTS = (  # of a model's folder, the first that is there
    "model.safetensors.index.json", "model.safetensors", "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
)  # fmt: skip
KINDS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".npz", ".npy")
DEEPEST = 12  # tables of tables in a torch file
SAVE = (
    "import sys, torch; from safetensors.torch import save_file; "
    'd = torch.load(sys.argv[1], "cpu", weights_only=False); '
    'd = d.state_dict() if hasattr(d, "state_dict") else d.get("state_dict", d.get("model", d)); '
    "save_file({k: v.clone() for k, v in d.items() if torch.is_tensor(v)}, sys.argv[2])"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a file, whose values `read` gives."""

    dtype: str  # as safetensors writes it: "F32", "BF16", "I64"
    shape: tuple[int, ...]
    read: Callable[[], Array]

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return "F" in self.dtype


Tensors = Mapping[str, Stored]


def tensors_of(path: Path) -> dict[str, Stored]:
    """The tensors of a file or of a model's folder by name; an .npy's one array is called "".

    torch is imported for its own files alone, which are read with `weights_only=True`: no code of theirs runs.

    Raises:
        VqtoolError: nothing is there, the file is damaged, of another kind, or a pickle that needs code.
    """
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise missing_file(path, what="file or folder")
    return _file(path)


def _file(path: Path) -> dict[str, Stored]:
    """The tensors of one file, by what it begins with."""
    try:
        with path.open("rb") as file:
            begin = file.read(16)
        if begin.startswith(NUMPY) or (begin.startswith(ZIP) and not _is_torch_zip(path)):
            return _numpy(path)
    except OSError as error:
        raise VqtoolError(f"cannot read `{path}`: {error.strerror or error}", exit_code=1) from error
    if begin[8:9] == b"{" or path.suffix == ".safetensors":
        return _safetensors(path)
    if begin.startswith((ZIP, b"\x80")) or path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
        return _torch(path)
    raise VqtoolError(f"`{path}` is not a file of tensors", hint=f"files of these kinds are read: {', '.join(KINDS)}")


def tensors_in(thing: Any) -> dict[str, Stored]:
    """The tensors of a module (all of its buffers, too), of a state dict, or an array or a tensor under the name "".

    Names within nested tables are joined by dots. torch is not imported for arrays.
    """
    if hasattr(thing, "state_dict"):
        thing = {**thing.state_dict(), **dict(thing.named_buffers())}
    if isinstance(thing, list | tuple):
        thing = np.asarray(thing)
    return dict(_flat(thing, "", DEEPEST))


# --- safetensors -----------------------------------------------------------------------------------------------------


def _safetensors(path: Path) -> dict[str, Stored]:
    _, table, begin = read_table(path)
    held, found = path.stat().st_size - begin, {}
    for name, entry in table.items():
        kind, shape, offsets = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        width = BYTES.get(kind)
        fits = len(offsets) == 2 and 0 <= offsets[0] <= offsets[1] and min(shape, default=0) >= 0
        if not fits or (width is not None and offsets[1] - offsets[0] != width * math.prod(shape)):
            raise damaged(path, f"the place of its tensor `{name}` does not fit its shape")
        if offsets[1] > held:
            raise VqtoolError(f"`{path}` is truncated: {offsets[1] - held:,} bytes are missing",
                              hint="take an intact copy of the file", exit_code=1)  # fmt: skip
        found[name] = Stored(kind, shape, partial(_values, path, name, kind, shape, begin + offsets[0]))
    return found


def _values(path: Path, name: str, kind: str, shape: tuple[int, ...], at: int) -> Array:
    if kind not in TYPES:
        raise VqtoolError(f"the tensor `{name}` of `{path.name}` has the dtype {kind}, which is not read",
                          hint="save it as float32")  # fmt: skip
    read = np.fromfile(path, TYPES[kind], math.prod(shape), offset=at).reshape(shape)
    return (read.astype("<u4") << 16).view("<f4") if kind == "BF16" else read  # the upper half of a float32


# --- NumPy -----------------------------------------------------------------------------------------------------------


def _numpy(path: Path) -> dict[str, Stored]:
    return {name: Stored(_kind(dtype), shape, partial(_array, path, name))
            for name, (shape, dtype) in array_headers(path).items()}  # fmt: skip


def _array(path: Path, name: str) -> Array:
    return arrays(path, lambda other: other == name)[0][name]


def _kind(dtype: np.dtype[Any]) -> str:
    """A NumPy type in safetensors' words."""
    if dtype.kind in "fiu":
        return f"{dtype.kind.upper()}{8 * dtype.itemsize}"
    return "BOOL" if dtype.kind == "b" else str(dtype).upper()


# --- torch -----------------------------------------------------------------------------------------------------------


def _is_torch_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name == "data.pkl" or name.endswith("/data.pkl") for name in archive.namelist())
    except OSError:
        raise
    except Exception as error:  # zipfile raises many things on a damaged file
        raise damaged(path, str(error)) from error


def _torch(path: Path) -> dict[str, Stored]:
    """The tensors of a torch file, mapped into memory where it is of the kind that can be."""
    from pickle import UnpicklingError

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        raise needs_code(path) from error
    except Exception as error:  # a damaged file raises many things
        raise damaged(path, f"torch cannot read it: {(str(error).splitlines() or [type(error).__name__])[0]}"
                      ) from error  # fmt: skip
    return dict(_flat(loaded, "", DEEPEST))


def needs_code(path: Path) -> VqtoolError:
    """The error for a pickle that holds more than tensors: loading it would run the code that it names."""
    line = shlex.join(["python", "-c", SAVE, str(path), f"{path.stem}.safetensors"])
    return VqtoolError(
        f"`{path}` is a pickle that holds more than tensors: reading it could run any code, so vqtool does not",
        hint=f"if you trust the file, convert it where its own libraries are installed: {line}",
    )


def _flat(value: Any, name: str, deepest: int) -> Iterator[tuple[str, Stored]]:
    """Every tensor under its names, joined by dots."""
    if isinstance(value, np.ndarray):
        yield name, Stored(_kind(value.dtype), value.shape, lambda: value)
    elif hasattr(value, "detach") and hasattr(value, "numpy"):
        yield name, Stored(_torch_kind(value), tuple(value.shape), partial(_torch_values, name, value))
    elif isinstance(value, Mapping | list | tuple) and deepest:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in items:
            yield from _flat(one, f"{name}.{key}" if name else str(key), deepest - 1)


def _torch_kind(tensor: Tensor) -> str:
    word = str(tensor.dtype).removeprefix("torch.")
    shorter = word.replace("bfloat", "BF").replace("uint", "U").replace("float", "F").replace("int", "I")
    return shorter.upper()


def _torch_values(name: str, tensor: Tensor) -> Array:
    try:
        plain = tensor.detach().cpu().to_dense()
        standard = str(plain.dtype) in ("torch.float16", "torch.float32", "torch.float64")
        return (plain if standard or not plain.is_floating_point() else plain.float()).numpy()
    except (TypeError, NotImplementedError, RuntimeError) as error:
        raise VqtoolError(f"the values of `{name}` ({tensor.dtype}, on {tensor.device}) cannot be read: {error}",
                          hint="save it as an ordinary float32 tensor") from error  # fmt: skip


# --- folders ---------------------------------------------------------------------------------------------------------


def _folder(folder: Path) -> dict[str, Stored]:
    """The tensors of a model's folder, which may be split over several files that an index names."""
    found: dict[str, Stored] = {}
    for path in weights_of(folder):
        found |= _file(path)
    return found


def weights_of(folder: Path) -> list[Path]:
    """The files of weights of a model's folder.

    Raises:
        VqtoolError: there are none, or several that no index names.
    """
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        files = sorted(p for p in folder.iterdir() if p.suffix in KINDS and p.is_file())
        if len(files) != 1:
            below = sorted({p.parent for s in KINDS for p in folder.glob(f"*/*{s}")})
            raise VqtoolError(
                f"`{folder}` holds {len(files)} files of weights, and which of them is meant is not known"
                if files else f"`{folder}` holds no file of weights",
                hint="give one of them: " + ", ".join(map(str, (files or below)[:6]))
                if files or below else f"files of these kinds are read: {', '.join(KINDS)}",
            )  # fmt: skip
        path = files[0]
    if path.suffix != ".json":
        return [path]
    index = read_json(path)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(p, str) and p and Path(p).name == p for p in places.values()):
        raise damaged(path, "its `weight_map` should name files of the same folder")
    return [folder / name for name in dict.fromkeys(places.values())]
