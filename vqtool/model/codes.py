"""Codes in files: which model they are of, and whether they fit it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vqtool.errors import VqtoolError
from vqtool.forms import damaged
from vqtool.model.build import CODING
from vqtool.model.format import CONDITION
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
    """What goes with codes: the model's digest, the sizes of its codebooks, and how many tokens are of a moment."""
    sizes = list(model.parts.quantizer.codebook_sizes)
    return {"model": model_hash(model), "codebook_sizes": sizes, "bands": model.parts.encoder.bands}


def code_use(model: Model) -> list[list[float]] | None:
    """How much training used each code of each codebook; None where the quantizer does not know."""
    use = model.parts.quantizer.code_use()
    return None if use is None else [each.tolist() for each in use]


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
        fits = tensor.shape[:1] == codes.shape[:1] and (field is None or tuple(tensor.shape[1:]) == tuple(field.shape))
        if not fits or not bool(tensor.isfinite().all()):
            raise damaged(path, f"its tensor `{name}` does not fit its codes, or holds a NaN or an infinity")
