"""What only a GPU can show, in one command: `python -m tests.gpu figures.json`, at most eight minutes.

`--part NAME` measures one part alone, so that it can be run in pieces of four minutes at most; each part adds to the
file what it found, and a part that fails leaves its error there. `python docs/make.py` makes the page of figures from
the file. The Triton kernels are used where their check agrees, and with VQTOOL_KERNELS=off nowhere. `--device cpu` runs
all of it in small, to see that it works: with VQTOOL_KERNELS=on and TRITON_INTERPRET=1 the kernels are interpreted.
Needs torch, what vqtool depends on, and triton for the kernels; no pytest.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.quantizers.combinations import all_combinations
from tests.quantizers.kernel_laws import SERVED
from vqtool.bench.measure import machine, peak_memory, timed
from vqtool.bench.quantizers import Case, floors, ours, peers
from vqtool.catalog import catalog
from vqtool.conformance import QUANTIZER_LAWS, Subject, judge
from vqtool.quantizers import VQ, Grouped, Gumbel, Residual
from vqtool.quantizers.core.kmeans import kmeans
from vqtool.quantizers.core.search import nearest
from vqtool.quantizers.gpu import switch

ROOT = Path(__file__).parents[1]
RECIPES = {
    "voltage": ("tokenizer", 200), "seismic-tiny": ("contrast", 100), "images": ("tokenizer", 200),
}  # stage, steps  # fmt: skip
SIZES = [(4096, 256, 64, 1), (32768, 256, 64, 1), (32768, 1024, 64, 1), (32768, 1024, 256, 1), (131072, 1024, 64, 1),
         (4096, 1024, 128, 8)]  # tokens, codes, features, levels  # fmt: skip


class Where:
    """The device, and whether it is only tried."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.tiny = device == "cpu"
        if self.tiny and switch.interpreted():
            small_limits()


def small_limits() -> None:
    """Call a codebook large that takes not too long in the interpreter."""
    if importlib.util.find_spec("triton") is not None:
        importlib.import_module("vqtool.quantizers.gpu.launches").BY_PRODUCT = 310
    switch.LARGE = 320


# The laws.


class Together(TorchFunctionMode):
    """Moves what a law makes on the CPU to where the quantizer is."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        if len(found) > 1 and getattr(func, "__name__", "") not in ("copy_", "to"):
            args, kwargs = tree_map(lambda t: t.to(self.device) if isinstance(t, Tensor) else t, (args, kwargs))
        return func(*args, **kwargs)


class Elsewhere(Subject):
    """A subject whose quantizers and inputs are on another device."""

    where = torch.device("cpu")

    def new(self, **changes: Any) -> Any:
        return super().new(**changes).to(self.where)

    def tokens(self, **options: Any) -> Tensor:
        return super().tokens(**options).to(self.where)


def laws(where: Where) -> dict[str, Any]:
    """Every law of the conformance kit, for the kinds that kernels serve, but for compiling and exporting."""
    Elsewhere.where = where.device
    found: dict[str, Any] = {"kept": 0, "broken": {}, "not run": {}}
    skipped = {"compiles", "exports"} | ({"revival-holds", "revival-relative", "unused-code-rests", "checkpointing"}
                                         if where.tiny else set())  # fmt: skip
    for kind, options in list(SERVED.items())[: 1 if where.tiny else None]:
        subject = Elsewhere(catalog().load("quantizer", kind), options=options)
        for law in QUANTIZER_LAWS:
            if law.id in skipped:
                continue
            try:
                with Together(where.device):
                    verdict = judge(law, subject).verdict
            except Exception as error:
                found["not run"][f"{kind}: {law.id}"] = problem(error)
                continue
            if verdict.status == "broken":
                kind_of = "not run" if "same device" in str(verdict.note) else "broken"
                found[kind_of][f"{kind}: {law.id}"] = f"{verdict.note} {verdict.figure}"[:200]
            found["kept"] += verdict.status == "kept"
    return found


def problem(error: Exception) -> str:
    """The first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


# Exactness.


def data_sets(many: int, size: int, dim: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name, tokens [N, D], codes [K, D]) that are hard to tell apart in less than float32."""
    generator = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, generator=generator)
    x, e = normal(many, dim), normal(size, dim)
    yield "random codes", x, e
    yield "8 features", x[:, :8], e[:, :8]
    yield "codes by k-means", x, kmeans(x, size, generator)
    flat = normal(many, 8) @ normal(8, dim)
    yield "codes by k-means of 8 dimensions", flat, kmeans(flat, size, generator)
    near = e.clone()
    near[1::2] = near[: 2 * (size // 2) : 2] + 1e-4 * normal(size // 2, dim)
    yield "pairs of codes 1e-4 apart", x, near
    for offset in (1e2, 1e3, 1e4):
        yield f"offset {offset:g}", x + offset, e + offset
    for scale in (1e-18, 1e-6, 1e4):
        yield f"scale {scale:g}", x * scale, e * scale
    far = e.clone()
    far[3] = 1e6
    yield "a code at 1e6", x, far
    yield "every code twice", x, torch.cat([e[: size // 2], e[: size // 2]])


def against_float64(where: Where) -> list[dict[str, Any]]:
    """Codes that are not those of float64, and those of them that float32 could have told apart.

    That is by more than 2^-19 |x| |e| of half the squared distance, x and e relative to the median code.
    """
    rows = []
    sizes = [(120, 70, 40)] if where.tiny else [(20000, 1024, 64), (4000, 257, 24), (4000, 8192, 64), (8000, 1024, 320)]
    for many, size, dim in sizes:
        for name, x, e in data_sets(many, size, dim):
            x, e = x.contiguous().to(where.device), e.contiguous().to(where.device)
            codes = switch.search(x, None, e) if switch.usable(x) else nearest(x, e)[0]
            different = wrong = 0
            centre = e.double().median(0).values
            table = e.double() - centre
            for part, code in zip(x.split(2**26 // e.numel() + 1), codes.split(2**26 // e.numel() + 1), strict=True):
                near = part.double() - centre
                score = table.square().sum(1) / 2 - near @ table.t()
                best, wanted = score.min(1)
                gap = score.gather(1, code[:, None])[:, 0] - best
                longest = torch.maximum(table[code].norm(dim=1), table[wanted].norm(dim=1))
                limit = 2**-19 * near.norm(dim=1) * longest + 2**-21 * longest.square()
                first = (score == best[:, None]).int().argmax(1)
                different += int((code != first).sum())
                wrong += int((gap > limit).sum())
            rows.append({"data": name, "tokens": many, "codes": len(e), "dim": e.shape[1],
                         "different": different, "wrong": wrong})  # fmt: skip
    return rows


def same_bits(where: Where) -> dict[str, bool]:
    """Whether two training runs of twenty steps end with the same bits, gradients by the tokens among them."""
    some = partial(VQ, codebook_size=16 if where.tiny else 256)
    made = {
        "vq": some, "residual of 4": partial(Residual, levels=4, of=some), "grouped of 2": partial(Grouped, of=some),
        "vq of a large codebook": partial(VQ, codebook_size=330 if where.tiny else 8192),
        "vq of 256 features": some,
        "gumbel of 2 groups": partial(Gumbel, groups=2, **some.keywords),
        "grouped of 2 residuals": partial(Grouped, of=partial(Residual, levels=2, of=some)),
    }  # fmt: skip
    found = {}
    for name, make in made.items():
        dim = 8 if where.tiny else 256 if "features" in name else 64
        ends = []
        for _ in range(2):
            torch.manual_seed(0)
            quantizer, end = make(dim).to(where.device), []
            trained = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1)), *quantizer.parameters()], lr=0.1)
            for _ in range(2 if where.tiny else 20):
                x = torch.randn(8, 40 if where.tiny else 2048, dim).to(where.device).requires_grad_()
                result = quantizer(x)
                (result.z.square().mean() + result.loss).backward()
                trained.step()
                quantizer.update(result.stats)
                end.append(x.grad.flatten(0, 1))
            ends.append(torch.cat([*end, *quantizer.vectors()]))
        found[name] = bool(torch.equal(*ends))
    return found


def against_the_cpu(where: Where) -> dict[str, Any]:
    """A training pass and an evaluation of every combination, on both devices from the same state."""
    wrong: dict[str, Any] = {}
    combinations = dict(list(all_combinations().items())[: 3 if where.tiny else None])
    for name, make in combinations.items():
        torch.manual_seed(0)
        options = {"codebook_size": 16} if "codebook_size" in make.__signature__.parameters else {}
        z = torch.randn(6, 50, 8)
        try:
            cpu = make(8, **options)
            cpu(z)
            gpu = make(8, **options).to(where.device)
            gpu.load_state_dict(cpu.state_dict())
            differ, off = 0, 0.0
            for train in (True, False):
                x, y = z.clone().requires_grad_(), z.clone().to(where.device).requires_grad_()
                a, b = cpu.train(train)(x), gpu.train(train)(y)
                differ += int((a.codes != b.codes.cpu()).sum())
                (a.z.square().sum() + a.loss).backward()
                (b.z.square().sum() + b.loss).backward()
                off = max(off, float((x.grad - y.grad.cpu()).norm() / x.grad.norm().clamp_min(1e-9)))
            if differ or off > 1e-3:
                wrong[name] = {"codes": differ, "gradient": off}
        except Exception as error:
            wrong[name] = problem(error)
    return {"combinations": len(combinations), "different": wrong}


# Speed.


def median(call: Callable[[], Any], where: Where) -> float:
    """The median time of a call in ms, by CUDA events."""
    for _ in range(1 if where.tiny else 5):
        call()
    times, began = [], time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - began < 0.4 and not where.tiny):
        times.append(timed(call, where.device))
    return sorted(times)[len(times) // 2]


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def benchmark(where: Where) -> list[dict[str, Any]]:
    """A training step and an encode of ours, eagerly and as a graph, of the peers that are installed, and bare `mm`."""
    kind = {True: "ema", False: "residual-ema"}
    cases = [Case(kind[levels == 1], n, k, d, books=levels) for n, k, d, levels in SIZES]
    cases += [Case("product-gumbel", 4096, 320, 256, books=2), Case("product-ema", 32768, 1024, 256, books=4)]
    if where.tiny:
        cases = [Case(kind, 128, 16, 8, books=books) for kind, books in
                 (("ema", 1), ("residual-ema", 2), ("product-ema", 2), ("product-gumbel", 2))]  # fmt: skip
    rows = []
    for case in cases:
        row: dict[str, Any] = {"kind": case.kind, "tokens": case.tokens, "codes": case.codes, "dim": case.dim,
                               "levels": case.books, "peers": {}}  # fmt: skip
        for mode in case.modes:
            torch.manual_seed(0)
            x = torch.randn(1, case.tokens, case.dim, device=where.device, requires_grad=mode == "train")
            upstream = torch.randn_like(x)
            call = ours(case, mode, x, upstream)
            row[f"{mode}_ms"] = median(call, where)
            row[f"{mode}_mib"] = peak_memory(call, where.device)
            try:
                row[f"{mode}_graph_ms"] = median(captured(call), where) if where.device.type == "cuda" else None
            except Exception as error:
                row[f"{mode}_graph_error"] = problem(error)
            for name, peer in peers(case, mode, x, upstream):
                try:
                    row["peers"].setdefault(name, {})[f"{mode}_ms"] = median(peer, where)
                except Exception as error:
                    row["peers"].setdefault(name, {})[f"{mode}_error"] = problem(error)
            row["mm_ms"] = median(floors(case, x)["mm into a buffer"], where)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


# Training.


def trained(command: list[str], recipe: str, stage: str, steps: int, where: Where) -> str:
    """The figures that a short training prints last, or its error."""
    with tempfile.TemporaryDirectory() as folder:
        options = [str(ROOT / f"recipes/{recipe}.toml"), "-o", f"{folder}/run", "--device", where.device.type,
                   "--stage", stage, "-s", f"stage.{stage}.steps={steps}", "--json"]  # fmt: skip
        paths = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")])
        call, env = [*command, "-m", "vqtool", "train", *options], {**os.environ, "PYTHONPATH": paths}
        made = subprocess.run(call, capture_output=True, text=True, timeout=200, env=env, cwd=ROOT, check=False)
    last = (made.stderr.strip().splitlines() or [""])[-1]
    return "trained" if made.returncode == 0 else f"failed with {made.returncode}: {last}"[:300]


def recipes(where: Where) -> dict[str, str]:
    """Three recipes with few steps."""
    some = {"voltage": ("tokenizer", 2)} if where.tiny else RECIPES
    return {name: trained([sys.executable], name, stage, steps, where) for name, (stage, steps) in some.items()}


def ranks(where: Where) -> dict[str, str]:
    """A recipe under torchrun, with a rank for each GPU (NCCL), or two ranks on a CPU."""
    many = torch.cuda.device_count() if where.device.type == "cuda" else 2
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={many}"]
    steps = 2 if where.tiny else 100
    return {f"voltage, ranks: {many}": trained(start, "voltage", "tokenizer", steps, where)}


PARTS: dict[str, Callable[[Where], Any]] = {
    "float64": against_float64, "same_bits": same_bits, "benchmark": benchmark, "laws": laws, "cpu": against_the_cpu,
    "recipes": recipes, "ranks": ranks,
}  # fmt: skip


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    where = Where(given.device)
    figures: dict[str, Any] = json.loads(given.out.read_text()) if given.part and given.out.exists() else {}
    figures |= {"machine": machine(where.device)["device"], "torch": torch.__version__, "cuda": torch.version.cuda,
                "date": datetime.datetime.now(datetime.UTC).date().isoformat()}  # fmt: skip
    for name in given.part or PARTS:
        began = time.perf_counter()
        try:
            figures[name] = PARTS[name](where)
        except Exception as error:
            figures[name] = {"error": problem(error)}
        figures.setdefault("kernels", {})[name] = {
            f"{check}: {dim} features, {levels} levels, {groups} groups": ok
            for (_, _, dim, levels, groups, check), ok in switch._trusted.items()
        }
        figures["notes"] = sorted({*figures.get("notes", []), *switch._noted})
        print(name, f"{time.perf_counter() - began:.0f} s", json.dumps(figures[name])[:2000], flush=True)
        given.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
