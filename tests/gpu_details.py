"""What to do about the kernels on a GPU: `python -m tests.gpu_details details.json`, two to three minutes.

`trials` runs every operator at many sizes beside plain PyTorch and keeps whole errors; `profile` says which kernels and
which calls of the CPU take the time; `tiles` times the search with other tiles than those of `launches.tiles`.
`--part NAME --shard 0/4` does a quarter of a part, so that several processes compile side by side: compiled kernels are
kept by Triton. Like `tests/gpu.py`, of which `docs/benchmarks.md` is made, it needs no pytest.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tests.gpu import Where, captured, median
from vqtool.bench.quantizers import Case, ours
from vqtool.quantizers.gpu import operators, switch

CASES = {  # tokens, codes, features, levels, training
    "encode": (131072, 1024, 64, 1, False),
    "train": (32768, 1024, 64, 1, True),
    "wide": (32768, 1024, 256, 1, False),
    "residual": (4096, 1024, 128, 8, False),
}


def trials(where: Where) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every operator beside plain PyTorch: for each size the outputs that differ, or a whole error."""
    shapes = [(1, 1)] if where.tiny else [(1, 1), (2, 1), (8, 1), (1, 4), (2, 2)]
    for dim, (levels, groups) in itertools.product([5] if where.tiny else [5, 16, 24, 64, 128, 256, 320, 512], shapes):
        for check in switch.TRIALS if levels == 1 else ["pass"]:
            yield (
                f"{check} D{dim} levels {levels} groups {groups}",
                lambda check=check, dim=dim, levels=levels, groups=groups: differences(
                    where, check, dim, levels, groups
                ),
            )


@torch.no_grad()
def differences(where: Where, check: str, dim: int, levels: int, groups: int) -> dict[str, Any]:
    """By output: its shape, how many numbers differ and by how much at most."""
    given = [t.to(where.device) for t in switch.trial_inputs(dim, levels, groups)]
    found, wanted = (switch.TRIALS[check](by, *given, groups) for by in (switch.ops, operators))
    differ = {}
    for place, (a, b) in enumerate(zip(found, wanted, strict=True)):
        close = torch.isclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True) if a.is_floating_point() else a == b
        if not bool(close.all()):
            away = float((a.double() - b.double()).nan_to_num().abs().max())
            differ[str(place)] = {"shape": list(a.shape), "different": int((~close).sum()), "by": away}
    return differ


def profiles(where: Where) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Where the time of a step goes, with kernels, with the certified search, and without."""
    cases = [
        Case("ema", 32768, 1024, 64),
        Case("ema", 131072, 1024, 64),
        Case("ema", 32768, 1024, 256),
        Case("residual-ema", 4096, 1024, 128, books=8),
        Case("product-gumbel", 4096, 320, 256, books=2),
    ]
    for asked, case in itertools.product(
        ("on", "certified", "off"), [Case("ema", 128, 16, 8)] if where.tiny else cases
    ):
        for mode in case.modes:
            yield (
                f"{'without' if asked == 'off' else asked} {case.name} {mode}",
                lambda asked=asked, case=case, mode=mode: taken(where, asked, case, mode),
            )


def taken(where: Where, asked: str, case: Case, mode: Any) -> dict[str, Any]:
    """Times of one call in ms: until it returns, until it is done, as a graph; in us the longest kernels and calls."""
    os.environ["VQTOOL_KERNELS"] = asked
    switch._trusted.clear()
    x = torch.randn(1, case.tokens, case.dim, device=where.device, requires_grad=mode == "train")
    call, on_gpu = ours(case, mode, x, torch.randn_like(x)), where.device.type == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    for _ in range(5):
        call()
    wait()
    began = time.perf_counter()
    for _ in range(20):
        call()
    returned = time.perf_counter()
    wait()
    done = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
        for _ in range(5):
            call()
        wait()
    rows = {"device": [], "cpu": []}
    for event in seen.key_averages():
        for kind in rows:
            spent = getattr(event, f"self_{kind}_time_total") / 5
            if spent > 0 and (kind == "cpu" or event.device_type != torch.autograd.DeviceType.CPU):
                rows[kind].append((event.key[:60], event.count / 5, round(spent, 1)))
    found = {"returned": (returned - began) * 50, "done": (done - began) * 50, "notes": sorted(switch._noted)}
    if on_gpu:
        found["graph"] = median(captured(call), where)
    return found | {kind: sorted(some, key=lambda row: -row[2])[:20] for kind, some in rows.items()}


def tiles(where: Where) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The whole pass as a CUDA graph, with other tiles of its search."""
    for name, asked in itertools.product(CASES, ("on", "certified")):
        wide = name == "wide"
        rows, slabs = ((32, 64, 128) if name == "residual" else (64, 128)), ((32, 64) if wide else (CASES[name][2],))
        for n, k, slab, warps, stages in itertools.product(rows, (32, 64, 128), slabs, (4, 8), (2, 3)):
            if not (wide and asked == "certified"):
                chosen = {"BLOCK_N": n, "BLOCK_K": k, "DP": slab, "num_warps": warps, "num_stages": stages}
                yield (
                    f"{name} {asked} {chosen}",
                    lambda name=name, asked=asked, chosen=chosen: with_tiles(where, name, asked, chosen),
                )


def with_tiles(where: Where, name: str, asked: str, chosen: dict[str, int]) -> float:
    """Time in ms."""
    from vqtool.quantizers.gpu import launches  # needs Triton

    os.environ["VQTOOL_KERNELS"] = asked
    tokens, size, dim, levels, train = (40, 40, 16, 1, True) if where.tiny else CASES[name]
    x = torch.randn(tokens, dim, device=where.device)
    tables, usual = torch.randn(levels, size, dim, device=where.device), launches.tiles
    sizes = chosen | {"BLOCK_K": chosen["BLOCK_K"] * (2 if launches.fast(x, dim) else 1)}  # halved where it is fast

    def call() -> tuple[Tensor, ...]:
        return launches.quantize(x, None, tables, 1, train)

    launches.tiles = lambda *_: dict(sizes)
    try:
        call()
        return median(captured(call) if where.device.type == "cuda" else call, where)
    finally:
        launches.tiles = usual


PARTS = {"trials": trials, "profile": profiles, "tiles": tiles}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--shard", default="0/1", help="which of how many equal shares to do")
    parser.add_argument("--seconds", type=float, default=60, help="start nothing new in a part after so long")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    where, (shard, of) = Where(given.device), map(int, given.shard.split("/"))
    figures: dict[str, Any] = {}
    for part in given.part or PARTS:
        began, figures[part] = time.perf_counter(), {}
        for name, call in itertools.islice(PARTS[part](where), shard, None, of):
            if time.perf_counter() - began > given.seconds:
                figures[part]["stopped before"] = name
                break
            try:
                figures[part][name] = call()
            except Exception:
                figures[part][name] = traceback.format_exc()[-1500:]
            given.out.write_text(json.dumps(figures, indent=1) + "\n")
        print(part, f"{time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
