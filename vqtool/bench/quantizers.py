"""The cases of `vqtool bench quantizers`: ours, the peers and the bare matrix product, on the same inputs."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vqtool.api import Quantizer
from vqtool.bench.measure import Call, evaluated, in_turns
from vqtool.bench.peers import EnCodecFormula, GumbelFormula, installed, trained
from vqtool.catalog import catalog

Mode = Literal["train", "encode"]
GPUS = ("cuda",)  # where the libraries for GPUs run
LARGEST = 0.4  # share of the machine's memory that a peer may be expected to need


@dataclass(frozen=True, slots=True)
class Case:
    """N tokens of D features, K codes in each of Q codebooks of a kind."""

    kind: str
    tokens: int
    codes: int
    dim: int
    books: int = 1
    modes: tuple[Mode, ...] = ("train", "encode")

    @property
    def name(self) -> str:
        """As it is printed."""
        books = f" Q{self.books}" if self.books > 1 else ""
        return f"{self.kind} N{self.tokens} K{self.codes} D{self.dim}{books}"


CASES = (
    Case("ema", 4096, 256, 64),
    Case("ema", 32768, 256, 64),
    Case("ema", 32768, 1024, 64),
    Case("ema", 32768, 1024, 256),
    Case("ema", 4096, 8192, 64),
    Case("ema", 131072, 1024, 64, modes=("encode",)),
    Case("residual-ema", 4096, 1024, 128, books=8),
    Case("product-gumbel", 4096, 320, 256, books=2),
)


def rows(device: torch.device, seconds: float) -> Iterator[dict[str, Any]]:
    """Every row of the table, each in about `seconds`."""
    for case in CASES:
        for mode in case.modes:
            yield measured(case, mode, device, seconds)


def measured(case: Case, mode: Mode, device: torch.device, seconds: float) -> dict[str, Any]:
    """One row of the table: times, memory and ratios to ours."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(1, case.tokens, case.dim, device=device, requires_grad=mode == "train")
        upstream = torch.randn_like(x)
        calls: dict[str, Call] = {"ours": ours(case, mode, x, upstream)}
        calls |= dict(peers(case, mode, x, upstream))
        calls |= floors(case, x)
        figures = in_turns(calls, device, seconds=seconds)
    mine = figures.pop("ours")
    floor, floor_out = figures.pop("mm"), figures.pop("mm into a buffer")
    return {
        "case": case.name,
        "mode": mode,
        "ours_ms": mine.ms,
        "ours_fastest_ms": mine.fastest_ms,
        "ours_mib": mine.mib,
        "peers": {n: f.beside(mine) | {"fastest_ms": f.fastest_ms} for n, f in figures.items()},
        "floor_ms": floor.ms,
        "floor_out_ms": floor_out.ms,
        "ours_to_floor": mine.ms / floor.ms,
        "ours_to_floor_out": mine.ms / floor_out.ms,
    }


def ours(case: Case, mode: Mode, x: Tensor, upstream: Tensor) -> Call:
    """One training step (forward, backward, update) or encode of our quantizer, as large as the case says."""
    parts = {"residual-ema": "levels", "product-gumbel": "groups", "product-ema": "groups"}.get(case.kind)
    sizes = {} if parts is None else {parts: case.books}
    make: Callable[..., Quantizer] = catalog().load("quantizer", case.kind)
    return run(make(case.dim, codebook_size=case.codes, **sizes), mode, x, upstream)


def run(quantizer: Quantizer, mode: Mode, x: Tensor, upstream: Tensor) -> Call:
    """One training step or encode of a quantizer that keeps vqtool's contract."""
    quantizer.to(x.device)
    if not quantizer.initialised:
        quantizer.initialise(x.detach()[:, : 2 * max(quantizer.codebook_sizes)])
    if mode == "encode":
        return evaluated(quantizer, x)
    weights = {name: torch.tensor(0.25, device=x.device) for name in quantizer.terms}

    def step() -> None:
        x.grad = None
        quantizer.zero_grad(set_to_none=True)
        q = quantizer(x)
        torch.autograd.backward([q.z, *q.terms.values()], [upstream, *(weights[n] for n in q.terms)])
        quantizer.update(q.stats)

    return step


def peers(case: Case, mode: Mode, x: Tensor, upstream: Tensor) -> Iterator[tuple[str, Call]]:
    """The peers that are installed and fit into memory."""
    dim, codes, books = case.dim, case.codes, case.books

    def both(module: nn.Module) -> Call:
        module = module.to(x.device)
        return trained(module, x, upstream) if mode == "train" else evaluated(module, x)

    if case.kind == "product-gumbel":
        if fits(6 * case.tokens * codes * dim, x.device):
            yield "transformers' formula", both(GumbelFormula(dim, codes, books))
        return
    if case.kind == "product-ema":  # no peer has groups with a codebook each
        return
    library = installed("vector_quantize_pytorch")
    if library is not None and fits(6 * case.tokens * codes, x.device):
        for name, rotation in (("vector-quantize-pytorch", None), ("vector-quantize-pytorch plain", False)):
            options = {"dim": dim, "codebook_size": codes, "decay": 0.99, "rotation_trick": rotation}
            if books > 1:
                yield name, both(library.ResidualVQ(num_quantizers=books, **options))
            else:
                yield name, both(library.VectorQuantize(**options))
    if books == 1 and fits(4 * case.tokens * codes, x.device):
        yield "EnCodec's formula", both(EnCodecFormula(dim, codes))
    if books == 1 and mode == "encode":
        yield from searches(x.detach()[0], torch.randn(codes, dim, device=x.device))


def searches(rows: Tensor, table: Tensor) -> Iterator[tuple[str, Call]]:
    """Libraries that do the search alone, among the codes `table` [K, D] for each of `rows` [N, D]."""
    kind = rows.device.type
    faiss = installed("faiss") if kind == "cpu" else None
    if faiss is not None:
        faiss.omp_set_num_threads(torch.get_num_threads())
        index, points = faiss.IndexFlatL2(table.shape[1]), rows.numpy()
        index.add(table.numpy())
        yield "faiss IndexFlatL2", lambda: index.search(points, 1)
    flash = installed("flash_kmeans.assign_euclid_triton", "euclid_assign_triton") if kind in GPUS else None
    if flash is not None:
        assign = flash.euclid_assign_triton
        squares = "x_sq" in inspect.signature(assign).parameters  # of some versions

        def assigned() -> None:
            assign(rows[None], table[None], **({"x_sq": rows.square().sum(1)[None]} if squares else {}))

        yield "flash-kmeans", assigned
    cuvs = installed("cuvs.cluster.kmeans", "predict", "KMeansParams") if kind in GPUS else None
    if cuvs is not None:
        params = cuvs.KMeansParams(n_clusters=len(table))
        yield "cuVS", lambda: cuvs.predict(params, rows, table)


def floors(case: Case, x: Tensor) -> dict[str, Call]:
    """The bare products: all N x K scores once per codebook, allocated anew or into a buffer."""
    rows = x.detach()[0, :, : case.dim // (case.books if case.kind == "product-ema" else 1)]
    gumbel = case.kind == "product-gumbel"
    width, times = (case.codes * case.books, 1) if gumbel else (case.codes, case.books)
    table = torch.randn(rows.shape[1], width, device=x.device)
    buffer = torch.empty(rows.shape[0], width, device=x.device)

    def anew() -> None:
        for _ in range(times):
            torch.mm(rows, table)

    def into() -> None:
        for _ in range(times):
            torch.mm(rows, table, out=buffer)

    return {"mm": anew, "mm into a buffer": into}


def fits(numbers: int, device: torch.device) -> bool:
    """Whether so many float32 numbers fit into a share of the memory of the device."""
    if device.type == "cuda":
        return 4 * numbers < LARGEST * torch.cuda.mem_get_info(device)[1]
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        total = 8 * 2**30
    return 4 * numbers < LARGEST * total
