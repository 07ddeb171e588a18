"""Reading what anybody may have written: JSON, TOML and NumPy's arrays, within bounds, and never a pickle."""

from __future__ import annotations

import json
import math
import re
import tomllib
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vqtool.errors import VqtoolError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEEPEST = 100  # tables or lists within each other; what vqtool writes has ten
LARGEST = 2**63  # integers are of 64 bits
UNPACKED, RATIO = 2**28, 100  # an array may unpack to so many bytes, or to so many times the size of its file
DOTTED = re.compile(r"[\w\"'-]++(?:[ \t]*+\.[ \t]*+[\w\"'-]++)*+")
NUMPY, ZIP = b"\x93NUMPY", b"PK"
READ = "fiubUS"  # kinds of NumPy's types that are read: numbers, true or false, text
REFUSED = {
    "O": ("Python objects, which only a pickle can hold", ".astype(str) for names, .astype(float) for numbers"),
    "c": ("complex numbers", "save the real and the imaginary part, or the magnitude"),
    "M": ("dates", "save them as numbers, or as text with .astype(str)"),
    "m": ("time differences", "save them as numbers of seconds"),
    "V": ("records of several fields", "save each field as an array of its own"),
}


def json_value(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: the text is not JSON, is nested deeper than `DEEPEST`, or has an integer of more than 64 bits.
    """
    try:
        value = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from None
    return bounded(value)


def read_json(path: Path) -> Any:
    """The value of a JSON file; what is wrong with it is one error."""
    try:
        return json_value(path.read_bytes())
    except OSError as error:
        raise VqtoolError(f"cannot read `{path}`: {error.strerror or error}", exit_code=1) from error
    except ValueError as error:
        raise VqtoolError(f"`{path}` is damaged: {error}", exit_code=1) from error


def toml_table(text: str) -> dict[str, Any]:
    """The table of a TOML text.

    Raises:
        ValueError: (`tomllib.TOMLDecodeError` for a mistake with a place) as of `json_value`.
    """
    if any(run.count(".") > DEEPEST for run in DOTTED.findall(text)):  # tomllib needs memory as the square of them
        raise ValueError(f"a key has more than {DEEPEST} parts")
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python's own, of integers
        raise ValueError("an integer has more than 64 bits") from None
    return bounded(table)


def bounded(value: Any) -> Any:
    """The value, if it is no deeper than `DEEPEST` and has no integer of more than 64 bits; else ValueError."""
    level = [value]
    for _ in range(DEEPEST):
        if not level:
            return value
        if any(isinstance(one, int) and abs(one) > LARGEST for one in level):
            raise ValueError("an integer has more than 64 bits")
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [one for many in inner for one in many]
    raise ValueError(f"it is nested deeper than {DEEPEST} levels")


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"an integer has {len(digits)} digits, more than 64 bits")
    return int(digits)


def is_pickle(path: Path) -> bool:
    """Whether a file begins as a Python pickle does (of protocol 2 or later, or one of ObsPy's)."""
    with path.open("rb") as file:
        begin = file.read(200)
    return (begin[:1] == b"\x80" and begin[1:2] <= b"\x05" and len(begin) > 1) or b"obspy.core" in begin


def pickled(path: Path) -> VqtoolError:
    """The error for a file that could only be unpickled, which would run whatever code it names."""
    return VqtoolError(
        f"`{path.name}` is a Python pickle; vqtool never unpickles files",
        hint="save the data in a format of their own",
        where=str(path),
    )


def no_twins(names: Iterable[str | None], path: Path) -> None:
    """Refuse a table with two columns of one name: which of them was meant cannot be known."""
    twice = [name for name, many in Counter(names).items() if many > 1 and name]
    if twice:
        raise VqtoolError(
            f"two columns of `{path.name}` are called `{twice[0]}`",
            hint="give every column a name of its own",
            where=str(path),
        )


def arrays(path: Path, wanted: Callable[[str], bool]) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    """The arrays of an .npz that are `wanted`, and the names of all; of an .npy the one, under the name "".

    Raises:
        VqtoolError: the file is missing, damaged or a pickle, a wanted array holds neither numbers nor text, or it
            promises more than the file can hold.
    """
    if not path.is_file():
        raise VqtoolError(f"there is no file `{path.name}`", hint=f"ls {path.parent}", where=str(path))
    try:
        with path.open("rb") as file:
            begin = file.read(6)
            file.seek(0)
            if begin == NUMPY:
                return {"": _array(file, path.stat().st_size, path, "the array")}, [""]
            if begin[:2] == ZIP:
                return _members(file, path, wanted)
        if is_pickle(path):
            raise pickled(path)
    except OSError as error:
        raise VqtoolError(f"cannot read `{path}`: {error.strerror or error}") from error
    raise VqtoolError(
        f"`{path.name}` is not a NumPy file", hint="numpy.savez(FILE, NAME=ARRAY, ...) makes an .npz", where=str(path)
    )


def array_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every array of an .npz, or of an .npy under the name ""; no values are read.

    Raises:
        VqtoolError: the file is damaged.
    """
    with path.open("rb") as file:
        if file.read(6) == NUMPY:
            file.seek(0)
            return {"": _header(file, path, "the array")}
        try:
            with zipfile.ZipFile(file) as archive:
                found = {}
                for name in archive.namelist():
                    with archive.open(name) as member:
                        found[name.removesuffix(".npy")] = _header(member, path, f"`{name}`")
                return found
        except VqtoolError:
            raise
        except Exception as error:  # zipfile and zlib raise many things on a damaged file
            raise _damaged(path, f"cannot be read as npz: {_first_line(error)}") from error


def _members(
    file: IO[bytes], path: Path, wanted: Callable[[str], bool]
) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    found = {}
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            twice = [name for name, many in Counter(names).items() if many > 1]
            if twice:
                raise VqtoolError(f"`{path.name}` holds two arrays called `{twice[0]}`", where=str(path))
            for name, info in zip(names, archive.infolist(), strict=True):
                if wanted(name):
                    _check_size(info.file_size, path, f"`{name}`")
                    with archive.open(info) as member:
                        found[name] = _array(member, info.file_size, path, f"`{name}`")
    except VqtoolError:
        raise
    except Exception as error:  # zipfile and zlib raise many things on a damaged file
        raise _damaged(path, f"cannot be read as npz: {_first_line(error)}") from error
    return found, names


def _check_size(size: int, path: Path, what: str) -> None:
    """Refuse an array that unpacks to far more than its file's size: it would take all of the memory."""
    held = path.stat().st_size
    if size > max(UNPACKED, RATIO * held):
        raise VqtoolError(
            f"{what} in `{path.name}` unpacks to {size / 1e9:.1f} GB, more than {RATIO} times the file's size",
            hint="if that is meant, save the file unpacked, with numpy.savez",
            where=str(path),
        )


def _array(file: IO[bytes], size: int, path: Path, what: str) -> NDArray[np.generic]:
    """One array from its .npy form of `size` bytes, header and numbers."""
    import numpy as np

    shape, kind = _header(file, path, what)
    begin = file.tell()
    if kind.kind not in READ:
        holds, hint = REFUSED.get(kind.kind, (f"`{kind}`", "save it as numbers"))
        message = f"{what} in `{path.name}` holds {holds}; vqtool reads numbers and text"
        raise VqtoolError(message, hint=hint, where=str(path))
    need = math.prod(shape) * kind.itemsize
    if min(shape, default=0) < 0 or begin + need > size or (need == 0 and math.prod(shape) > size):
        raise _damaged(path, f"{what} is shorter than the shape {shape} of its header")
    file.seek(0)
    read: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    return read


def _header(file: IO[bytes], path: Path, what: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and the type of an array in its .npy form; the file is then where its values begin."""
    import numpy as np

    try:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, kind = header(file)
        return tuple(int(n) for n in shape), kind
    except Exception as error:  # NumPy parses headers as Python, which raises many things
        raise _damaged(path, f"the header of {what} cannot be read") from error


def _damaged(path: Path, why: str) -> VqtoolError:
    hint = "it may be cut short: copy or save it again"
    return VqtoolError(f"`{path.name}` is damaged: {why}", hint=hint, where=str(path))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip("\"'")
