"""Named arrays from a user's file: NumPy's .npz, CSV and other text tables, MATLAB's .mat; nothing pickled is read."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError, missing_extra
from vqtool.files import missing_file
from vqtool.untrusted import arrays, is_pickle, no_twins
from vqtool_voltage.units import unit_of

Columns = dict[str, NDArray[Any]]
TEXT = (".csv", ".tsv", ".txt")
SAVE = "save it with numpy.savez(file, v=..., i_p=..., freq_hz=..., temp_c=..., material=...), or as .csv or .mat"
NUMBERED = re.compile(r"(.*?)[\s_.\-\[(]*(\d+)[\])]*")  # v_0, v0, v[0], v.0, v(0)
FEWEST = 8  # numbered columns that make a waveform
HEAD = 200  # lines in which a table begins
NUMBER = re.compile(r"[-+]?(\d[\d.,]*|[.,]\d+)(e[-+]?\d+)?|nan|", re.IGNORECASE)  # or an empty cell


def read(path: Path, wanted: Callable[[str], bool], notes: list[str]) -> tuple[Columns, list[str]]:
    """The `wanted` arrays of a file by their names, and all names; columns v_0, v_1, ... of a table are one array `v`.

    Lines before a table that are skipped are noted.

    Raises:
        VqtoolError: the file is missing, damaged, of another kind, or an array in it holds neither numbers nor text.
    """
    if not path.is_file():
        raise VqtoolError(f"there is no file `{path.name}`", hint=missing_file(path).hint, where=str(path))
    kind = path.suffix.lower()
    if kind not in (*TEXT, ".mat"):
        return _npz(path, wanted)
    found = _mat(path) if kind == ".mat" else _numbered(_table(path, notes))
    return {name: column for name, column in found.items() if wanted(name)}, list(found)


def _npz(path: Path, wanted: Callable[[str], bool]) -> tuple[Columns, list[str]]:
    with path.open("rb") as file:
        known = file.read(6).startswith((b"PK", b"\x93NUMPY"))
    if not known and not is_pickle(path):
        message = f"`{path.name}` cannot be read as npz: only .npz, .csv, .tsv, .txt and .mat are read"
        raise VqtoolError(message, hint=SAVE, where=str(path))
    found, names = arrays(path, wanted)
    if names == [""]:
        raise VqtoolError(f"`{path.name}` holds one bare array, not named arrays", hint=SAVE, where=str(path))
    return dict(found), names


def _table(path: Path, notes: list[str]) -> Columns:
    """The columns of a text table, whose separator, decimal mark and first line are recognised."""
    try:
        import pandas as pd
    except ImportError as error:
        raise missing_extra("pandas", "voltage", f"reading `{path.name}`") from error
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        units = _without_preamble(lines, path, notes)
        head = next((line for line in lines if line.strip()), "")
        mark = _mark(head)
        decimal = "," if mark != "," and re.search(r"\d,\d", "".join(lines[1:3])) else "."
        no_twins([name.strip().strip('"') for name in re.split(mark, head)], path)
        table = pd.read_csv(io.StringIO("\n".join(lines)), sep=mark, decimal=decimal, skipinitialspace=True,
                            keep_default_na=True)  # fmt: skip
        if len(units) == len(table.columns):
            table.columns = [f"{name} [{unit}]" if unit else name for name, unit in zip(table, units, strict=True)]
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise VqtoolError(f"`{path.name}` cannot be read as a table: {reason}", hint=SAVE, where=str(path)) from error
    names = [str(name) for name in table.columns]
    if len(table) == 0 or any(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", name.strip(), re.I) for name in names):
        what = "has no rows" if len(table) == 0 else "begins with numbers where the names of its columns should be"
        raise VqtoolError(f"`{path.name}` {what}", hint="add a first line such as v,i_p,freq_hz", where=str(path))
    return {name: _plain(table[column].to_numpy()) for name, column in zip(names, table.columns, strict=True)}


def _mark(line: str) -> str:
    """What separates the cells of a line."""
    return max(("\t", ";", ","), key=line.count) if re.search("[\t;,]", line) else r"\s+"


def _without_preamble(lines: list[str], path: Path, notes: list[str]) -> list[str]:
    """Leave the names and the data of a text table in `lines`; the units below the names, where there are any.

    An oscilloscope writes settings before its table, and a simulator comments behind `%` or `#`, with the names in the
    last of them. The data are the lines up to the last that have numbers in the same places; the line before them has
    the names, or units below the names.
    """
    full = [i for i, line in enumerate(lines[:HEAD]) if line.strip()]
    bare = {i: re.sub(r"^\s*[#%]+\s*", "", lines[i]) for i in full}
    cells = {i: [cell.strip(' "') for cell in re.split(_mark(bare[i]), bare[i].strip())] for i in full}
    kinds = {i: [NUMBER.fullmatch(cell) is not None for cell in cells[i]] for i in full}
    others = [at for at, i in enumerate(full) if kinds[i] != kinds[full[-1]]]
    if not others or full[others[-1]] == full[-1]:
        return []
    above, data = full[: others[-1] + 1], full[others[-1] + 1]
    named = [
        i for i in above if len(cells[i]) == len(cells[data]) and not any(NUMBER.fullmatch(c) for c in cells[i] if c)
    ]
    broken = any(kinds[i] == kinds[data] for i in above)  # data that a line without numbers interrupts
    if not any(kinds[data]) or above[-1] not in named or broken:
        return []
    words = [cell.strip("()[]") for cell in cells[above[-1]]]
    units = [unit_of(word) for word in words]
    below = (
        all(unit or not word for unit, word in zip(units, words, strict=True)) and above[-2:-1] == named[-2:-1] != []
    )
    names = above[-2] if below else above[-1]
    if skipped := above[: -2 if below else -1]:
        notes.append(
            f"{path.name}: {len(skipped)} lines before the table skipped, the first `{lines[skipped[0]][:40]}`"
        )
    lines[:data] = [bare[names]]
    return units if below else []


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Objects of pandas or MATLAB as text."""
    return column.astype(str) if column.dtype.kind not in "fiubUS" else column


def _numbered(table: Columns) -> Columns:
    """Columns v_0, v_1, ... joined to [n, L]; the others as they are."""
    groups: dict[str, dict[int, str]] = {}
    for name in table:
        if (match := NUMBERED.fullmatch(name.strip())) is not None and match[1]:
            groups.setdefault(match[1], {})[int(match[2])] = name
    waves = {
        prefix: [of[k] for k in sorted(of)]
        for prefix, of in groups.items()
        if len(of) >= FEWEST and max(of) - min(of) == len(of) - 1 and prefix not in table
    }
    joined = {name for names in waves.values() for name in names}
    columns = {name: column for name, column in table.items() if name not in joined}
    return columns | {prefix: np.stack([table[name] for name in names], 1) for prefix, names in waves.items()}


def _mat(path: Path) -> Columns:
    """The arrays of a .mat; those of a structure by their own names."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise missing_extra("scipy", "voltage", f"reading `{path.name}`") from error
    try:
        held = loadmat(path, simplify_cells=True)
    except NotImplementedError:
        held = _hdf5(path)
    except Exception as error:  # scipy raises many things on a damaged file
        hint = "save it in MATLAB with save FILE.mat -v7"
        raise VqtoolError(f"`{path.name}` cannot be read as a .mat file", hint=hint, where=str(path)) from error
    columns: Columns = {}
    _flatten({name: value for name, value in held.items() if not name.startswith("__")}, columns)
    return columns


def _hdf5(path: Path) -> dict[str, Any]:
    """A .mat of version 7.3, which is HDF5 and holds its arrays transposed; numbers only."""
    hint = "save it in MATLAB with save FILE.mat -v7"
    try:
        import h5py
    except ImportError as error:
        raise VqtoolError(f"`{path.name}` is of version 7.3, which needs `h5py`", hint=hint, where=str(path)) from error
    found: dict[str, Any] = {}
    try:
        with h5py.File(path) as file:
            file.visititems(lambda name, item: found.update(_dataset(name, item)))
    except OSError as error:
        raise VqtoolError(f"`{path.name}` cannot be read as a .mat file", hint=hint, where=str(path)) from error
    return found


def _dataset(name: str, item: Any) -> dict[str, Any]:
    if not hasattr(item, "dtype") or item.dtype.kind not in "fiu" or "#refs#" in name:
        return {}
    value = np.asarray(item).T.squeeze()
    kind = item.attrs.get("MATLAB_class", b"")
    text = kind == b"char" and value.ndim <= 1
    return {name.rpartition("/")[2]: "".join(map(chr, np.atleast_1d(value))) if text else value}


def _flatten(held: Mapping[str, Any], columns: Columns) -> None:
    """Structures opened, lists of structures joined entry by entry."""
    for name, value in held.items():
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            value = {key: [one[key] for one in value] for key in value[0] if all(key in one for one in value)}
        if isinstance(value, Mapping):
            _flatten(value, columns)
            continue
        try:
            array = np.asarray(value)
        except ValueError:  # entries of different lengths
            continue
        if array.dtype.kind in "fiubUS" or (array.dtype == object and all(isinstance(v, str) for v in array.flat)):
            columns[name] = _plain(array)
