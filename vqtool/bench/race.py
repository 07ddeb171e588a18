"""Kinds of quantizer against each other, ours or plugins': `vqtool bench quantizers KIND KIND`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from vqtool.api import Quantizer
from vqtool.bench.measure import in_turns
from vqtool.bench.quantizers import Mode, run
from vqtool.catalog import catalog

TOKENS, DIM, CODES = 32768, 64, 1024
MODES: tuple[Mode, ...] = ("train", "encode")


def rows(device: torch.device, seconds: float, kinds: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each mode; ratios are to the first kind.

    Kinds with an option `codebook_size` get `CODES` codes, all else is left as the kind has it: the name of each in the
    row says what it had to choose from.
    """
    for mode in MODES:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            x = torch.randn(1, TOKENS, DIM, device=device, requires_grad=mode == "train")
            upstream = torch.randn_like(x)
            made = {kind: racer(kind) for kind in kinds}
            calls = {title(kind, quantizer): run(quantizer, mode, x, upstream) for kind, quantizer in made.items()}
            figures = in_turns(calls, device, seconds=seconds)
        (name, first), *others = figures.items()
        yield {
            "case": f"N{TOKENS} D{DIM}",
            "mode": mode,
            "first": name,
            "ours_ms": first.ms,
            "ours_mib": first.mib,
            "peers": {n: f.beside(first) for n, f in others},
        }


def racer(kind: str) -> Quantizer:
    """A quantizer of a kind, of the race's size where the kind has that option."""
    made = catalog().load("quantizer", kind)
    sized = "codebook_size" in inspect.signature(made).parameters
    quantizer: Quantizer = made(DIM, **({"codebook_size": CODES} if sized else {}))
    return quantizer


def title(kind: str, quantizer: Quantizer) -> str:
    """A kind with its codebooks, as `residual-ema 4 x 1024`."""
    sizes = quantizer.codebook_sizes
    if len(set(sizes)) > 1:
        return f"{kind} {' x '.join(map(str, sizes))}"
    return f"{kind} {len(sizes)} x {sizes[0]}" if len(sizes) > 1 else f"{kind} {sizes[0]}"
