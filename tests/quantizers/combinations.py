"""Topologies over kinds of quantizer: the combinations that make sense, as subjects of the laws."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from vqtool.quantizers import FSQ, LFQ, VQ, Grouped, Gumbel, Residual, Routed, Soft, Waterfill
from vqtool.testing import Subject

LEAVES: Mapping[str, Callable[..., Any]] = {
    "vq": VQ,
    "learned": partial(VQ, codes="learned"),
    "mapped": partial(VQ, codes="mapped"),
    "frozen": partial(VQ, codes="frozen"),
    "rotation": partial(VQ, gradient="rotation"),
    "diveq": partial(VQ, codes="learned", gradient="diveq"),
    "cosine": partial(VQ, metric="cosine"),
    "cosine-learned": partial(VQ, codes="learned", metric="cosine", code_dim=2, project="learned"),
    "plane": partial(VQ, code_dim=2),
    "plane-learned": partial(VQ, codes="learned", code_dim=2),
    "sampled": partial(VQ, sampling=0.1),
    "fsq": partial(FSQ, levels=(4, 3)),
    "lfq": partial(LFQ, bits=3),
    "bsq": partial(LFQ, bits=3, spherical=True),
    "gumbel": Gumbel,
    "soft": Soft,
    "soft-ema": partial(Soft, codes="ema"),
}
TOPOLOGIES: Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "residual": lambda of: partial(Residual, levels=2, of=of),
    "shared": lambda of: partial(Residual, levels=2, of=of, shared=True),
    "dropping": lambda of: partial(Residual, levels=2, of=of, level_dropout=0.5),
    "inside": lambda of: partial(Residual, levels=2, of=of, code_dim=4),
    "grouped": lambda of: partial(Grouped, groups=2, of=of),
    "routed": lambda of: partial(Routed, of=[of, of]),
    "waterfill": lambda of: partial(Waterfill, levels=2, of=of),
    "residual-grouped": lambda of: partial(Residual, levels=2, of=partial(Grouped, groups=2, of=of)),
    "grouped-residual": lambda of: partial(Grouped, groups=2, of=partial(Residual, levels=2, of=of)),
    "semantic-first": lambda of: partial(
        Residual, of=[partial(VQ, codebook_size=16), partial(Residual, levels=2, of=of)]
    ),
}


def all_combinations() -> dict[str, Callable[..., Any]]:
    """Every leaf alone and in every topology, by name."""
    found: dict[str, Callable[..., Any]] = {}
    for leaf in LEAVES:
        found[leaf] = combined(leaf)
        found |= {f"{topology} of {leaf}": combined(leaf, topology) for topology in TOPOLOGIES}
    return found


def combined(leaf: str, topology: str | None = None) -> Callable[..., Any]:
    """A constructor `make(dim, **options)` whose options are those of the leaf."""
    kind = LEAVES[leaf]
    own = {name: p for name, p in inspect.signature(kind).parameters.items() if p.kind is p.KEYWORD_ONLY}
    given = getattr(kind, "keywords", {})

    def make(dim: int, **options: Any) -> Any:
        of = partial(kind, **options)
        return of(dim) if topology is None else TOPOLOGIES[topology](of)(dim)

    parameters = [inspect.Parameter("dim", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += [p for name, p in own.items() if name not in given]
    make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return make


def subject(make: Callable[..., Any], seed: int = 0) -> Subject:
    """A small subject: few codes, few tokens."""
    return Subject(make, dim=8, seed=seed, batch=3, length=40)
