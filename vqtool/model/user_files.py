"""A user's files on their way through a model: options set for a call, signals to codes, codes in one file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vqtool.api import CodedPiece, Data, DataSpec, Files
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.forms import damaged
from vqtool.model import checkpoint
from vqtool.model.format import CONDITION, under
from vqtool.recipe import Recipe
from vqtool.recipe.overrides import apply_to_resolved, parse


def user_files(recipe: Recipe, spec: DataSpec, asked: Mapping[str, Any] | None = None) -> Files:
    """What reads and writes files of the recipe's data kind, with the data options `asked` for in this call.

    Raises:
        VqtoolError: this kind of data has no files of users, or none of these options.
    """
    kind = recipe.data.kind
    data: type[Data] = catalog().load("data", kind)
    if data.files is Files:
        raise VqtoolError(f"the data kind `{kind}` cannot read or write files of a user", exit_code=1)
    return data.files(spec, recipe.data.options, asked)


def options_asked(recipe: Recipe, overrides: Sequence[str]) -> dict[str, Any]:
    """The data's options that `data.KEY=VALUE` set for this call, checked as a recipe's are."""
    keys = []
    for text in overrides:
        parts, _ = parse(text)
        if len(parts) != 2 or parts[0] != "data":
            raise VqtoolError("only options of [data] can be set here", hint="-s data.KEY=VALUE", where=f"-s {text}")
        keys.append(parts[1])
    changed = apply_to_resolved(recipe, overrides).data.options
    return {key: changed[key] for key in keys}


def save_codes(path: Path, pieces: Iterable[CodedPiece], about: Mapping[str, Any]) -> list[Path]:
    """All pieces' codes in one safetensors file, with the conditions they need to be decoded."""
    held = list(pieces)
    if not held:
        raise VqtoolError("there is nothing to encode")
    tensors = {"codes": torch.cat([p.codes for p in held]), "sent": torch.cat([p.sent for p in held])}
    tensors |= {CONDITION + name: torch.cat([p.conditions[name] for p in held]) for name in held[0].conditions}
    checkpoint.save(path, tensors, {"kind": "codes", **about, "about": held[0].metadata})
    return [path]


def load_codes(path: Path) -> tuple[str, Iterator[CodedPiece]]:
    """What `save_codes` wrote: the digest of the model, and the codes as one piece."""
    read = checkpoint.load(path)
    if read.about.get("kind") != "codes":
        raise VqtoolError(f"`{path}` holds no codes", hint="vqtool encode CKPT INPUT --out FILE writes them")
    metadata, model = checkpoint.needed(path, read, "about", "model")
    missing = [name for name in ("codes", "sent") if name not in read.tensors]
    if missing:
        raise damaged(path, f"it has no tensor `{missing[0]}`")
    conditions = under(CONDITION, read.tensors)
    return model, iter([CodedPiece(read.tensors["codes"], read.tensors["sent"], conditions, metadata)])
