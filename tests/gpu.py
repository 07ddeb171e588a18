"""What only a GPU can show, in one command: `python -m tests.gpu figures.json`, some minutes with torch on CUDA.

Every combination of quantizers against the CPU, the search against float64, whether two runs give the same bits, and
the benchmark beside EnCodec's formula; the figures and the machine's name go into a JSON file. With VQTOOL_KERNELS=on
all of it runs with the Triton kernels; `kernels` says for which sizes they passed their check.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.quantizers.combinations import all_combinations
from vqtool.bench.peers import EnCodecFormula
from vqtool.quantizers import VQ, Residual
from vqtool.quantizers.core.search import nearest
from vqtool.quantizers.gpu import switch

CUDA = torch.device("cuda")
CASES = [(4096, 256, 64, 1), (32768, 256, 64, 1), (32768, 1024, 64, 1), (32768, 1024, 256, 1), (131072, 1024, 64, 1),
         (4096, 1024, 128, 8)]  # tokens, codes, features, levels  # fmt: skip


def against_the_cpu() -> dict[str, Any]:
    """A training pass and an evaluation of every combination, on both devices from the same state."""
    wrong: dict[str, Any] = {}
    for name, make in all_combinations().items():
        torch.manual_seed(0)
        cpu = make(8, **({"codebook_size": 16} if "codebook_size" in make.__signature__.parameters else {}))
        z = torch.randn(6, 50, 8)
        try:
            cpu(z)
            gpu = make(8, **({"codebook_size": 16} if "codebook_size" in make.__signature__.parameters else {})).to(
                CUDA
            )
            gpu.load_state_dict(cpu.state_dict())
            differ, off = 0, 0.0
            for train in (True, False):
                x, y = z.clone().requires_grad_(), z.to(CUDA).requires_grad_()
                a, b = cpu.train(train)(x), gpu.train(train)(y)
                differ += int((a.codes != b.codes.cpu()).sum())
                (a.z.square().sum() + a.loss).backward()
                (b.z.square().sum() + b.loss).backward()
                off = max(off, float((x.grad - y.grad.cpu()).norm() / x.grad.norm().clamp_min(1e-9)))
            if differ or off > 1e-3:
                wrong[name] = {"codes": differ, "gradient": off}
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"[:200]
    return {"combinations": len(all_combinations()), "different": wrong}


def against_float64() -> list[dict[str, Any]]:
    """Codes that are further than the nearest by more than float32 can tell."""
    rows = []
    generator = torch.Generator(CUDA).manual_seed(0)
    for n, k, d in ((20000, 1024, 64), (20000, 257, 5), (4000, 8192, 64)):
        for name, scale, offset in (
            ("normal", 1.0, 0.0),
            ("offset", 1.0, 1e4),
            ("tiny", 1e-18, 0.0),
            ("huge", 1e4, 0.0),
        ):
            x = torch.randn(n, d, device=CUDA, generator=generator) * scale + offset
            e = torch.randn(k, d, device=CUDA, generator=generator) * scale + offset
            codes, _ = nearest(x, e)
            distance = torch.cat([
                (part.double()[:, None] - e.double()[None]).square().sum(2) for part in x.split(2**26 // (k * d) + 1)
            ])  # fmt: skip
            best, taken = distance.min(1).values, distance.gather(1, codes[:, None]).squeeze(1)
            spread = float(distance.mean()) * 1e-6
            rows.append({"data": name, "tokens": n, "codes": k, "dim": d,
                         "wrong": int((taken > best * (1 + 1e-5) + spread).sum())})  # fmt: skip
    return rows


def quantizer(codes: int, dim: int, levels: int) -> torch.nn.Module:
    of = partial(VQ, codebook_size=codes)
    return (of(dim) if levels == 1 else Residual(dim, levels=levels, of=of)).to(CUDA)


def same_bits() -> dict[str, bool]:
    """Whether two training runs of twenty steps end with the same bits."""
    found = {}
    for levels in (1, 4):
        ends = []
        for _ in range(2):
            torch.manual_seed(0)
            made = quantizer(256, 64, levels)
            for _ in range(20):
                made.update(made(torch.randn(8, 1024, 64, device=CUDA)).stats)
            ends.append(torch.cat(made.vectors()))
        found[f"levels {levels}"] = bool(torch.equal(*ends))
    return found


def timed(call: Callable[[], Any], seconds: float = 1.0) -> float:
    """The median time of a call in ms, by CUDA events."""
    for _ in range(5):
        call()
    torch.cuda.synchronize()
    times, began = [], time.perf_counter()
    while time.perf_counter() - began < seconds:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def benchmark() -> list[dict[str, Any]]:
    """A training step and an encode of ours and of EnCodec's formula, and the bare matrix product."""
    rows = []
    for n, k, d, levels in CASES:
        x = torch.randn(1, n, d, device=CUDA, requires_grad=True)
        upstream = torch.randn_like(x)
        ours = quantizer(k, d, levels)
        ours(x.detach())

        def train(ours: Any = ours, x: torch.Tensor = x, upstream: torch.Tensor = upstream) -> None:
            x.grad = None
            result = ours.train()(x)
            torch.autograd.backward([result.z, result.terms["commitment"]], [upstream, torch.tensor(0.25, device=CUDA)])
            ours.update(result.stats)

        def encode(ours: Any = ours, x: torch.Tensor = x) -> None:
            with torch.no_grad():
                ours.eval()(x)

        row = {
            "tokens": n,
            "codes": k,
            "dim": d,
            "levels": levels,
            "train_ms": timed(train),
            "encode_ms": timed(encode),
        }
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        encode()
        row["encode_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
        row["mm_ms"] = timed(lambda x=x, k=k, d=d: torch.mm(x.detach()[0], torch.empty(d, k, device=CUDA)))
        if levels == 1:
            peer = EnCodecFormula(d, k).to(CUDA)

            def peer_step(peer: Any = peer, x: torch.Tensor = x, upstream: torch.Tensor = upstream) -> None:
                x.grad = None
                value, loss = peer.train()(x)[:2]
                torch.autograd.backward([value, loss], [upstream, torch.tensor(0.25, device=CUDA)])

            try:
                row["encodec_train_ms"] = timed(peer_step)
            except Exception as error:
                row["encodec_error"] = str(error)[:100]
        rows.append(row)
        print(row, flush=True)
    return rows


def main(out: Path) -> None:
    warnings.simplefilter("ignore")
    figures: dict[str, Any] = {
        "machine": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
    }  # fmt: skip
    for name, measure in (("float64", against_float64), ("same_bits", same_bits), ("benchmark", benchmark),
                          ("cpu", against_the_cpu)):  # fmt: skip
        began = time.perf_counter()
        figures[name] = measure()
        figures["kernels"] = {
            f"{dim} features, {levels} levels": ok for (_, dim, levels), ok in switch._trusted.items()
        }
        print(name, f"{time.perf_counter() - began:.0f} s", json.dumps(figures[name])[:2000], flush=True)
        out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
