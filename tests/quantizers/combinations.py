"""Topologies over kinds of quantizer: the combinations that make sense, as subjects of the laws.

`python -m tests.quantizers.combinations [PART OF A NAME]` checks every law on all of them, in some minutes.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from vqtool.conformance import QUANTIZER_LAWS, Subject, judge
from vqtool.quantizers import FSQ, LFQ, VQ, Grouped, Gumbel, Residual, Routed, Soft, Waterfill

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
    "semantic-first": lambda of: partial(Residual, of=[first_level(of), partial(Residual, levels=2, of=of)]),
}


def first_level(of: Callable[..., Any]) -> Callable[..., Any]:
    """A plain codebook before levels of another kind, with their options where it has them."""
    given = getattr(of, "keywords", {})
    return partial(VQ, codebook_size=16, **{name: given[name] for name in ("decay", "revive_below") if name in given})


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


def main(part: str) -> int:
    """Check every law on the combinations whose name holds `part`; the exit code says whether one is broken."""
    warnings.simplefilter("ignore")
    broken = 0
    for name, make in all_combinations().items():
        one = subject(make)
        for law in QUANTIZER_LAWS if part in name else ():
            verdict = judge(law, one).verdict
            if verdict.status == "broken":
                broken += 1
                print(f"{name}: {law.id}: {verdict.figure} {verdict.note}", flush=True)
    print(f"{broken} broken laws in {len(all_combinations())} combinations")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
