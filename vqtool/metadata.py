"""The header of a checkpoint: its table of tensors and the metadata that ride with them; read without any library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqtool.errors import VqtoolError
from vqtool.forms import METADATA, damaged, misfit
from vqtool.untrusted import json_value

FORMAT = "vqtool/1"
LONGEST_HEADER = 100_000_000  # bytes; the limit of safetensors itself
BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4,
         "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8}  # fmt: skip
CUT = "it was cut off while copied or saved"
ENTRY = {"dtype": str, "shape": [int], "data_offsets": [int]}


@dataclass(frozen=True, slots=True)
class Header:
    """What a checkpoint holds, without its numbers."""

    about: dict[str, Any]  # the metadata, each of the form that it should have
    tensors: dict[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name, as they are stored
    aliases: dict[str, str]  # other names of stored tensors

    @property
    def numbers(self) -> int:
        """How many numbers the file holds."""
        return sum(math.prod(shape) for _, shape in self.tensors.values())


def read_header(path: Path) -> Header:
    """The header of a checkpoint or a file of codes: an 8-byte length and JSON; no tensor is read.

    Raises:
        VqtoolError: the file is truncated, damaged, not a safetensors file, or not one of this vqtool's.
    """
    foreign = VqtoolError(f"`{path}` is not a safetensors file", hint="it may be truncated or of another kind")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length < 2 or length > LONGEST_HEADER:
                raise foreign
            raw = file.read(length)
    except OSError as error:
        raise VqtoolError(f"cannot read `{path}`: {error.strerror or error}", exit_code=1) from error
    if not raw.startswith(b"{"):
        raise foreign
    if len(raw) < length:
        raise VqtoolError(f"`{path}` is truncated: its header ends early", hint=CUT)
    try:
        table = json_value(raw)
    except ValueError:
        raise foreign from None
    texts = table.pop("__metadata__", None) or {}
    wrong = misfit(texts, {str: str}, ".__metadata__") or misfit(table, {str: ENTRY})
    if wrong:
        raise damaged(path, wrong)
    about = parsed(path, texts)
    aliases: dict[str, str] = about.pop("aliases", {})
    tensors = _tensors(path, table, size - 8 - length)
    _check_aliases(path, aliases, tensors)
    header = Header(about, tensors, aliases)
    _check_layout(path, about.get("layout", {}), header)
    return header


def _tensors(path: Path, table: Mapping[str, Any], held: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The table of tensors, where `held` bytes follow the header."""
    begin = 0
    for name, entry in sorted(table.items(), key=lambda item: item[1]["data_offsets"]):
        width, offsets = BYTES.get(entry["dtype"]), entry["data_offsets"]
        if width is None or any(n < 0 for n in entry["shape"]):
            raise damaged(path, f"its tensor `{name}` has the dtype {entry['dtype']} and the shape {entry['shape']}")
        if offsets != [begin, begin + width * math.prod(entry["shape"])]:
            raise damaged(path, f"the place of its tensor `{name}` does not fit its shape")
        begin = offsets[1]
    if held < begin:
        raise VqtoolError(f"`{path}` is truncated: {begin - held:,} bytes are missing", hint=CUT)
    return {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in table.items()}


def _check_aliases(path: Path, aliases: Mapping[str, str], tensors: Iterable[str]) -> None:
    """Every alias must be a new name of a tensor that is there."""
    known = set(tensors)
    for name, source in aliases.items():
        if source not in known:
            raise damaged(path, f"it has no tensor `{source}`, which its `aliases` name")
        if name in known:
            raise damaged(path, f"its `aliases` name `{name}`, which is a tensor of its own")


def in_text(dtype: str, shape: Iterable[int]) -> str:
    """A tensor's dtype and shape in a word: "F32[2, 3]"."""
    return f"{dtype}{list(shape)}"


def _check_layout(path: Path, layout: Mapping[str, str], header: Header) -> None:
    """The parts' tensors must be those that were saved: a file changed by other hands may have lost some."""
    found = {name: in_text(*kind) for name, kind in header.tensors.items()}
    found |= {name: found[source] for name, source in header.aliases.items()}
    wrong = [f"its tensor `{name}` is {found[name]}, not {kind}" if name in found else f"it has no tensor `{name}`"
             for name, kind in layout.items() if found.get(name) != kind]  # fmt: skip
    if wrong:
        more = f", and {len(wrong) - 1} more of its tensors are wrong" if len(wrong) > 1 else ""
        raise damaged(path, wrong[0] + more)


def check_format(path: Path, found: str) -> None:
    """Refuse files that vqtool did not write, or a later vqtool did."""
    if not found.startswith("vqtool/"):
        raise VqtoolError(
            f"`{path}` is a safetensors file, but not a checkpoint of vqtool", hint="vqtool train RECIPE makes them"
        )
    if found != FORMAT:
        raise VqtoolError(f"`{path}` has the format {found}; this vqtool reads {FORMAT}", hint="pip install -U vqtool")


def parsed(path: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    """The metadata's values: JSON where they should be, else the text itself.

    Raises:
        VqtoolError: the file is of another format, or a value is not of its form.
    """
    check_format(path, texts.get("format", ""))
    return {name: _value(path, name, text) for name, text in texts.items()}


def _value(path: Path, name: str, text: str) -> Any:
    form = METADATA.get(name)
    if form is str:
        return text
    try:
        value = json_value(text)
    except ValueError as error:
        if form is not None or text.startswith(("{", "[")):
            raise damaged(path, f"its `{name}` is not JSON") from error
        return text
    wrong = misfit(value, form, f".{name}") if form is not None else None
    if wrong:
        raise damaged(path, wrong)
    return value
