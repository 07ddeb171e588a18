"""What every checkpoint holds for a diagnosis without data: use, vectors and names of the quantizer's codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vqtool.api.quantizer import PART_NAMES, Quantizer
from vqtool.model.format import USAGE, VECTORS
from vqtool.quantizers.core.codebook import Codebook


@dataclass
class Seen:
    """What the last validation saw of the quantizer.

    `tensors` hold, per codebook q, `usage.q.counts` [K] (tokens that chose each code), and where codes are the nearest
    of their vectors also `usage.q.errors` [K] (the sum of squared distances of those inputs to it) and
    `usage.q.offsets` [K] (the squared distance between it and their mean).
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    row: dict[str, float] = field(default_factory=dict)  # everything that the validation measured

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Seen:
        """What a checkpoint holds of it."""
        kept = {name: value for name, value in tensors.items() if name.startswith(USAGE)}
        return cls(kept, dict(metadata.get("validation") or {}))

    def followed_by(self, later: Seen) -> Seen:
        """What is known after a later validation; one that used no codes leaves the older knowledge of them."""
        if later.tensors:
            return later
        codes = {name: value for name, value in self.row.items() if name.startswith(("codes.", "joint.", "sequence."))}
        return Seen(self.tensors, codes | later.row)


def vector_tensors(quantizer: Quantizer) -> dict[str, Tensor]:
    """`vectors.q` [K, d]: what each code stands for; of groups, their own features only.

    Codes behind a map are kept as they are in front of it, where they are compared and have d dimensions to fill.
    """
    vectors = quantizer.vectors() or ()
    tables = [book.table.detach() for book in getattr(quantizer, "books", ())]
    inner = dict(enumerate(tables)) if len(tables) == len(vectors) else {}
    narrow = {q for q, table in inner.items() if table.shape[1] < vectors[q].shape[1]}
    return {f"{VECTORS}{q}": inner[q] if q in narrow else own_features(quantizer, v.detach())
            for q, v in enumerate(vectors)}  # fmt: skip


def own_features(quantizer: Quantizer, vectors: Tensor) -> Tensor:
    """`vectors` [K, D] without the features of other groups, where they are zero."""
    own = own_columns(quantizer, vectors)
    return vectors if bool(own.all()) else vectors[:, own]


def own_columns(quantizer: Quantizer, vectors: Tensor) -> Tensor:
    """Which features [D] the codebook of `vectors` [K, D] describes."""
    own = (vectors != 0).any(0)
    whole = quantizer.topology == "residual" or len(quantizer.codebook_sizes) == 1 or not bool(own.any())
    return torch.ones_like(own) if whole else own


def quantizer_metadata(quantizer: Quantizer) -> dict[str, Any]:
    """What a diagnosis must know of a quantizer and cannot see in tensors; JSON values."""
    return {
        "names": list(quantizer.codebook_names),
        "sizes": list(quantizer.codebook_sizes),
        "noun": PART_NAMES[quantizer.topology],
        "nearest": quantizer.nearest,
        "initialised": quantizer.initialised,
        "fixed": quantizer.fixed,
        "movable": any(isinstance(m, Codebook) and m.kind in ("ema", "learned") for m in quantizer.modules()),
        "mapped": any(isinstance(m, Codebook) and m.kind == "mapped" for m in quantizer.modules()),
        "terms": sorted(quantizer.terms),
        "knobs": sorted(quantizer.knobs),
    }
