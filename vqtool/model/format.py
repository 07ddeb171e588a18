"""The format of a checkpoint: every key, prefix and file name of it, and the reader of its header; needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vqtool.errors import VqtoolError
from vqtool.forms import RESOLVED, damaged, misfit
from vqtool.untrusted import json_value

FAMILY, FORMAT = "vqtool/", 1  # `format` is "vqtool/1" in the files that this vqtool writes
MIGRATIONS: dict[int, Callable[[dict[str, str]], dict[str, str]]] = {}  # of the metadata, from that number to the next

# Names of tensors begin with one of these.
PARTS = "parts."  # parts.ROLE.NAME: the state of the built parts
LOSSES = "losses."  # losses.NAME.NAME: what losses learned
USAGE = "usage."  # usage.Q.FIGURE: how the codes of codebook Q were used in the last validation
VECTORS = "vectors."  # vectors.Q: what each code of codebook Q stands for
AVERAGE = "average."  # the moving average of the weights; this and the next three are in resumable states only
OPTIMIZER = "optimizer."  # optimizer.NAME.INDEX.SLOT; optimizer.INDEX.SLOT in files of before there were several
BALANCE = "balance."  # the averages of the gradients of adversarial losses
PENDING = "pending."  # counts of codes since the last row of metrics.jsonl
SOURCE = "source."  # source.NAME: the tensors of another library's quantizer that this one was converted from
CONDITION = "condition."  # condition.FIELD, beside `codes` and `sent`: in files of codes only
T = TypeVar("T")
USAGE_FIGURES = ("counts", "errors", "offsets")

# Files of a run.
BEST, LAST, RESUME = "best.safetensors", "last.safetensors", "resume.safetensors"
RESOLVED_FILE, RECIPE_FILE, ENVIRONMENT_FILE = "resolved.json", "recipe.toml", "environment.json"
METRICS_FILE, SUMMARY_FILE = "metrics.jsonl", "summary.json"
BYPASS = "quantizer.bypass"  # the knob, as rows of metrics.jsonl name it

FIELD = {"shape": [int], "role": str, "unit": str, "names": [str]}
PROGRESS = {"step": int, "best": float, "best_step": int, "stale": int, "seconds": float}
METADATA = {  # the forms of all values that may ride with the tensors
    # of every file
    "format": str,
    "aliases": {str: str},
    # of checkpoints
    "version": str,
    "recipe": str,
    "resolved": RESOLVED,
    "stage": str,
    "step": int,
    "data": {"fields": {str: FIELD}, "sample_rate": (float, None), "periodic": bool, "about": dict},
    "plugins": {str: str},
    "metrics": {"best?": float, "best_step?": int, "named?": str},
    "knobs": {str: (bool, float, str, None)},
    "validation": ({str: float}, None),
    "quantizer": {"names": [str], "sizes": [int], "nearest?": bool, "initialised?": bool, "terms?": [str],
                  "knobs?": [str]},
    "layout": {str: str},
    "stored": str,
    "improved": dict,
    "converted": {"from": str, "root": str, "layout": str, "search": str, "cosine": (bool, None), "learned": bool,
                  "options": dict},
    # of resumable states
    "done": [dict],
    "progress": PROGRESS,
    "average_steps": int,
    "param_groups": [{"params": [int], "optimizer?": str}],
    "scaler": {str: float},
    "weights": {str: float},
    "fresh": bool,
    "learned": [str],
    "started_from": str,
    "moved": {str: float},
    "met": bool,
    "headline": {str: [float]},
    "files": {str: {"files": int, "bytes": int, "sha256": str}},
    # of files of codes
    "kind": str,
    "model": str,
    "codebook_sizes": [int],
    "bands": int,
    "about": dict,
}  # fmt: skip

LONGEST_HEADER = 100_000_000  # bytes; the limit of safetensors itself
BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4,
         "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8}  # fmt: skip
CUT = "it was cut off while copied or saved"
ENTRY = {"dtype": str, "shape": [int], "data_offsets": [int]}


@dataclass(frozen=True, slots=True)
class Header:
    """What a checkpoint holds, without the values of its tensors."""

    metadata: dict[str, Any]  # the metadata, each of the form that it should have
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
    texts, table, begin = read_table(path)
    metadata = parsed(path, texts)
    aliases: dict[str, str] = metadata.pop("aliases", {})
    tensors = _tensors(path, table, path.stat().st_size - begin)
    _check_aliases(path, aliases, tensors)
    header = Header(metadata, tensors, aliases)
    _check_layout(path, metadata.get("layout", {}), header)
    return header


def is_of_vqtool(path: Path) -> bool:
    """Whether a file is a safetensors file whose metadata say that vqtool wrote it, or a damaged one called so."""
    try:
        with path.open("rb") as file:
            begin = file.read(9)
    except OSError:
        return False
    if begin[8:] != b"{":
        return path.suffix == ".safetensors"
    return read_table(path)[0].get("format", "").startswith(FAMILY)


def read_table(path: Path) -> tuple[dict[str, str], dict[str, dict[str, Any]], int]:
    """The metadata and the table of tensors of any safetensors file, and where the values begin (bytes).

    Raises:
        VqtoolError: the file is truncated, damaged or not a safetensors file.
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
    return texts, table, 8 + length


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


def under(prefix: str, tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def stage_file(stage: str) -> str:
    """The file of a stage's result."""
    return f"{stage}.safetensors"


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


def parsed(path: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    """The values of the metadata, of whatever format: JSON where they should be, else the text itself.

    Raises:
        VqtoolError: vqtool did not write the file, a later one did, or a value is not of its form.
    """
    return {name: _value(path, name, text) for name, text in _migrated(path, dict(texts)).items()}


def _migrated(path: Path, texts: dict[str, str]) -> dict[str, str]:
    """The metadata as the current format has them."""
    name = texts.get("format", "")
    if not name.startswith(FAMILY):
        raise VqtoolError(
            f"`{path}` is a safetensors file, but not a checkpoint of vqtool", hint="vqtool train RECIPE makes them"
        )
    number = name.removeprefix(FAMILY)
    if not number.isdecimal() or not 0 < int(number) <= FORMAT:
        raise VqtoolError(f"`{path}` has the format {name}; this vqtool reads up to {FAMILY}{FORMAT}",
                          hint="pip install -U vqtool")  # fmt: skip
    for old in range(int(number), FORMAT):
        texts = MIGRATIONS[old](texts)
    return texts


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
