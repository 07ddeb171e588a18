"""Checkpoints: weights plus the recipe, in safetensors and only that; read by name, never by import path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vqtool.errors import VqtoolError
from vqtool.files import write_atomic
from vqtool.forms import damaged
from vqtool.model.format import FAMILY, FORMAT, USAGE, Header, in_text, read_header

DTYPES = {  # as safetensors calls them
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64", torch.complex64: "C64",
}  # fmt: skip
HALF = "fp16"  # what `stored` says of a file whose float32 numbers were written as float16


@dataclass(frozen=True)
class Checkpoint:
    """The tensors by name and the JSON values that ride with them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    header: Header = field(default_factory=lambda: Header({}, {}, {}))


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Write a checkpoint; tied tensors are stored once and their other names remembered. Returns the sha256."""
    kept: dict[str, Tensor] = {}
    first: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
        if tensor.numel() and key in first:
            aliases[name] = first[key]
        else:
            first[key] = name
            kept[name] = tensor.detach().cpu().contiguous().clone()
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    texts |= {"format": f"{FAMILY}{FORMAT}", "aliases": json.dumps(aliases)}
    return write_atomic(path, safetensors.torch.save(kept, texts))


def save_half(path: Path, read: Checkpoint) -> str:
    """Write a checkpoint with half the digits of its weights, as float16; reading it gives float32. Returns the sha256.

    How codes were used in the last validation is left out. A tensor whose size float16 cannot hold, as statistics of
    data in large or small units, stays as it is.
    """
    halves = {id(t): _halved(t) for t in read.tensors.values()}  # tied ones stay so
    kept = {name: halves[id(t)] for name, t in read.tensors.items() if not name.startswith(USAGE)}
    held = {name: in_text(DTYPES[t.dtype], t.shape) for name, t in kept.items()}
    wanted = {name: held[name] for name in read.metadata.get("layout", {})}
    return save(path, kept, {**read.metadata, "layout": wanted, "stored": HALF})


def _halved(tensor: Tensor) -> Tensor:
    """A float32 tensor as float16, unless its largest value overflows or loses its digits there."""
    if tensor.dtype != torch.float32 or not tensor.numel():
        return tensor
    half, most = tensor.half(), tensor.abs().max()
    return half if (half.float() - tensor).abs().max() <= 1e-3 * most else tensor


def layout(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The dtypes and shapes of tensors, as the metadata hold them: `{"parts.x": "F32[2, 3]"}`."""
    return {name: in_text(DTYPES[tensor.dtype], tensor.shape) for name, tensor in tensors.items()}


def load(path: Path) -> Checkpoint:
    """Read a checkpoint on the CPU; a missing, truncated, damaged or foreign file is one error."""
    if not path.is_file():
        raise VqtoolError(f"there is no checkpoint `{path}`")
    header = read_header(path)
    try:
        with safe_open(str(path), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in header.tensors}
    except SafetensorError as error:
        raise damaged(path, str(error)) from error
    except OSError as error:
        raise VqtoolError(f"cannot read `{path}`: {error.strerror or error}", exit_code=1) from error
    tensors |= {name: tensors[source] for name, source in header.aliases.items()}
    if header.metadata.get("stored") == HALF:
        tensors = {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}
    return Checkpoint(tensors, header.metadata, header)


def needed(path: Path | str, read: Checkpoint, *names: str) -> list[Any]:
    """Values of the metadata by name; one that is missing is an error."""
    for name in names:
        if name not in read.metadata:
            raise damaged(path, f"it has no `{name}`")
    return [read.metadata[name] for name in names]


def sha256(path: Path) -> str:
    """The digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fill(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load a state into a module, strictly."""
    check_fits(module.state_dict(), tensors, what)
    module.load_state_dict(dict(tensors), strict=True)


def check_fits(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> None:
    """The tensors must be those that are wanted: one that is missing, surplus or of another kind is an error."""
    missing = sorted(wanted.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - wanted.keys())
    both = sorted(wanted.keys() & tensors.keys())
    shapes = [n for n in both if wanted[n].shape != tensors[n].shape]
    dtypes = [f"{n} ({tensors[n].dtype}, not {wanted[n].dtype})".replace("torch.", "")
              for n in both if wanted[n].dtype != tensors[n].dtype]  # fmt: skip
    if missing or surplus or shapes or dtypes:
        problems = [f"{label} {', '.join(names[:3])}" for label, names in
                (("it has no", missing), ("it has a foreign", surplus), ("other shapes:", shapes),
                 ("other dtypes:", dtypes)) if names]  # fmt: skip
        raise VqtoolError(
            f"`{what}` does not fit its own recipe: {'; '.join(problems)}",
            hint="it was written by another version of a part or plugin: `vqtool show` lists versions",
            exit_code=1,
        )


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Which tensors hold a NaN or an infinity, in words; None where all are finite."""
    bad = {name: tensor.numel() - int(tensor.isfinite().sum()) for name, tensor in tensors.items()}
    name = next((name for name, count in bad.items() if count), None)
    if name is None:
        return None
    others = sum(count > 0 for count in bad.values()) - 1
    more = f", and some of {others} more tensors," if others else ""
    return f"{bad[name]:,} of the {tensors[name].numel():,} values of `{name}`{more} are NaN or infinite"


def require_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights with a NaN or an infinity: whatever is computed from them means nothing."""
    problem = not_finite(tensors)
    if problem is not None:
        hint = f"vqtool diagnose {what}, or use an earlier checkpoint of the run"
        raise VqtoolError(f"`{what}` cannot be used: {problem}", hint=hint, exit_code=1)
