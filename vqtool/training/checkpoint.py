"""Checkpoints: weights plus the recipe, in safetensors and only that; read by name, never by import path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vqtool.errors import VqtoolError
from vqtool.files import write_atomic
from vqtool.metadata import FORMAT, parsed


@dataclass(frozen=True)
class Checkpoint:
    """The tensors by name and the JSON values that ride with them."""

    tensors: dict[str, Tensor]
    about: dict[str, Any] = field(default_factory=dict)


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
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
    metadata = {"format": FORMAT, "aliases": json.dumps(aliases)}
    metadata |= {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
    return write_atomic(path, safetensors.torch.save(kept, metadata))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint on the CPU; a missing, truncated or foreign file is one error."""
    if not path.is_file():
        raise VqtoolError(f"there is no checkpoint `{path}`")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            about = parsed(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise VqtoolError(
            f"`{path}` is no whole safetensors file: {error}", hint="it may be truncated or of another kind"
        ) from error
    except OSError as error:
        raise VqtoolError(f"cannot read `{path}`: {error.strerror or error}", exit_code=1) from error
    for name, source in about.pop("aliases", {}).items():
        tensors[name] = tensors[source]
    return Checkpoint(tensors, about)


def sha256(path: Path) -> str:
    """The digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fill(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load a state into a module, strictly: a missing, surplus or misshapen tensor is one error that names it."""
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - wanted.keys())
    wrong = sorted(n for n in wanted.keys() & tensors.keys() if wanted[n].shape != tensors[n].shape)
    if missing or surplus or wrong:
        told = [f"{label} {', '.join(names[:3])}" for label, names in
                (("it lacks", missing), ("it has too much:", surplus), ("other shapes:", wrong)) if names]  # fmt: skip
        raise VqtoolError(
            f"`{what}` does not fit its own recipe: {'; '.join(told)}",
            hint="it was written by another version of a part or plugin: `vqtool show` lists versions",
            exit_code=1,
        )
    module.load_state_dict(dict(tensors), strict=True)
