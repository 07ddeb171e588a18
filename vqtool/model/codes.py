"""Codes in files: which model they are of, whether they fit it, and all of them in one safetensors file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtool.api import CodedPiece
from vqtool.errors import VqtoolError
from vqtool.forms import damaged
from vqtool.model import checkpoint
from vqtool.model.build import CODING
from vqtool.model.format import CONDITION, under
from vqtool.model.model import Model


def model_hash(model: Model) -> str:
    """A digest of what codes mean: the quantizer's and decoder's weights, not those of later stages."""
    digest = hashlib.sha256()
    for name, value in sorted(model.parts.state_dict().items()):
        if name.split(".")[0] in CODING:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def codes_metadata(model: Model) -> dict[str, Any]:
    """What `Files.save_codes` needs to know of the model that codes are of."""
    quantizer = model.parts.quantizer
    use = quantizer.code_use()
    return {
        "model": model_hash(model),
        "codebook_sizes": list(quantizer.codebook_sizes),
        "bands": model.parts.encoder.bands,
        "stride": model.parts.encoder.stride,
        "code_use": None if use is None else [each.tolist() for each in use],
    }


def save_codes(path: Path, pieces: Iterable[CodedPiece], model: Mapping[str, Any]) -> list[Path]:
    """All pieces' codes in one safetensors file, with the conditions they need to be decoded."""
    held = list(pieces)
    if not held:
        raise VqtoolError("there is nothing to encode")
    tensors = {"codes": torch.cat([p.codes for p in held]), "sent": torch.cat([p.sent for p in held])}
    tensors |= {CONDITION + name: torch.cat([p.conditions[name] for p in held]) for name in held[0].conditions}
    kept = {name: value for name, value in model.items() if name != "code_use"}
    checkpoint.save(path, tensors, {"kind": "codes", **kept, "about": held[0].metadata})
    return [path]


def load_codes(path: Path, model: Mapping[str, Any]) -> tuple[str, Iterator[CodedPiece]]:
    """What `save_codes` wrote: the digest of the model, and the codes as one piece."""
    read = checkpoint.load(path)
    if read.metadata.get("kind") != "codes":
        raise VqtoolError(f"`{path}` holds no codes", hint="vqtool encode CKPT INPUT --out FILE writes them")
    metadata, digest = checkpoint.needed(path, read, "about", "model")
    missing = [name for name in ("codes", "sent") if name not in read.tensors]
    if missing:
        raise damaged(path, f"it has no tensor `{missing[0]}`")
    piece = CodedPiece(read.tensors["codes"], read.tensors["sent"], under(CONDITION, read.tensors), metadata)
    return digest, iter([piece])


def check_codes(model: Model, codes: Tensor, sent: Tensor, conditions: Mapping[str, Tensor], path: Path) -> None:
    """Codes from a file must be ones that the model's quantizer gives, and what goes with them must fit them."""
    if codes.dim() != 3:
        raise damaged(path, f"its codes have the shape {tuple(codes.shape)}, not (windows, tokens, codebooks)")
    try:
        model.parts.quantizer.check_codes(codes)
    except VqtoolError as error:
        raise damaged(path, error.message) from error
    if sent.shape != (len(codes), len(model.parts.norm.sends)):
        raise damaged(path, f"its tensor `sent` has the shape {tuple(sent.shape)}")
    for name, tensor in (("sent", sent), *((CONDITION + name, value) for name, value in conditions.items())):
        field = model.spec.fields.get(name.removeprefix(CONDITION))
        end = -1 if field is not None and model.spec.named("mask") and field.role in ("wave", "mask") else None
        fits = tensor.shape[:1] == codes.shape[:1] and (
            field is None or tuple(tensor.shape[1:end]) == tuple(field.shape[:end])
        )
        if not fits or not bool(tensor.isfinite().all()):
            raise damaged(path, f"its tensor `{name}` does not fit its codes, or holds a NaN or an infinity")
