"""What a CodebookMonitor costs of a training step: `python -m tests.bench.monitor_cost [PAIRS]`.

One thread of a CPU, B*T 4096 tokens, D 64, K 1024: a small autoencoder with one codebook, and with 8 residual levels.

* inside: the time spent in hooks of a step that is counted and of one that is not, and in a look:
  (window * counted + (every - window) * idle + look) / (every * step) of all steps.
* paired: the median difference of a step that is counted and one without a monitor, in turns first. It holds what the
  hooks cost elsewhere too, and the noise of the machine, which is far larger than what is measured.

Times are of the process, so that others on the machine count less.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import vqtool
from vqtool.foreign.taps import Hook
from vqtool.quantizers import VQ, Residual

EVERY = 200
DIM, TOKENS, CODES = 64, 4096, 1024


class Autoencoder(nn.Module):
    """Linear layers around a quantizer that returns (z, codes, loss)."""

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(DIM, 128), nn.GELU(), nn.Linear(128, DIM))
        self.quantizer = quantizer
        self.decoder = nn.Sequential(nn.Linear(DIM, 128), nn.GELU(), nn.Linear(128, DIM))

    def forward(self, x: Tensor) -> Tensor:
        """The loss of x [B, T, D]."""
        z, _, loss = self.quantizer(self.encoder(x))
        return nn.functional.mse_loss(self.decoder(z), x) + loss.sum()


def quantizers() -> dict[str, Callable[[], nn.Module]]:
    """What is measured; vector-quantize-pytorch's where it is installed."""
    of = partial(VQ, codebook_size=CODES)
    made: dict[str, Callable[[], nn.Module]] = {
        "VQ": partial(of, DIM),
        "Residual 8": partial(Residual, DIM, levels=8, of=of),
    }
    try:
        from vector_quantize_pytorch import ResidualVQ, VectorQuantize
    except ImportError:
        return made
    made["VectorQuantize"] = partial(VectorQuantize, DIM, CODES)
    made["ResidualVQ 8"] = partial(ResidualVQ, dim=DIM, num_quantizers=8, codebook_size=CODES)
    return made


def measured(make: Callable[[], nn.Module], pairs: int) -> dict[str, float]:
    """Seconds of a step, inside its hooks, of a look, and the paired difference; the share of all steps."""
    torch.manual_seed(0)
    model = Autoencoder(make())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if isinstance(model.quantizer, vqtool.api.Quantizer):
        vqtool.attach(optimizer, model)
    x = torch.randn(8, TOKENS // 8, DIM)
    inside = [0.0]

    def timed(hook: Hook, *arguments: Any) -> None:
        began = time.process_time()
        call(hook, *arguments)
        inside[0] += time.process_time() - began

    def step() -> float:
        inside[0], began = 0.0, time.process_time()
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
        return time.process_time() - began

    def watched(is_open: bool) -> tuple[float, float]:
        with vqtool.CodebookMonitor(model, every=EVERY) as monitor:
            monitor.sources = chosen.sources
            for tap in list(monitor.taps):
                if (tap.outlet.path, tap.outlet.method) not in kept:
                    monitor.taps.remove(tap)
                    tap.close()
            monitor.gate.open = is_open
            return step(), inside[0]

    for _ in range(3):
        step()
    call, Hook.__call__ = Hook.__call__, timed  # type: ignore[method-assign]  # to time it
    looks = []
    with vqtool.CodebookMonitor(model, every=EVERY) as chosen:
        for number in range(1, 9):  # plugins load at the first look
            chosen.gate.open = True
            step()
            began = time.process_time()
            chosen.look(number * EVERY)
            looks.append(time.process_time() - began)
        window, kept = chosen._window(), {(tap.outlet.path, tap.outlet.method) for tap in chosen.taps}
    alone, counted = [], []
    for pair in range(pairs):
        for with_monitor in (True, False) if pair % 2 else (False, True):
            if with_monitor:
                counted.append(watched(True))
            else:
                alone.append(step())
    idle = statistics.median(watched(False)[1] for _ in range(pairs))
    Hook.__call__ = call  # type: ignore[method-assign]  # to time it
    whole, look = statistics.median(alone), statistics.median(looks[1:])
    counting = statistics.median(one for _, one in counted)
    paired = statistics.median(a - b for (a, _), b in zip(counted, alone, strict=True))
    share = (window * counting + (EVERY - window) * idle + look) / (EVERY * whole)
    return {"step": whole, "counted": counting, "idle": idle, "look": look, "window": window, "paired": paired,
            "share": share}  # fmt: skip


def main(pairs: int = 20) -> None:
    """Print a row for each quantizer."""
    torch.set_num_threads(1)
    for name, make in quantizers().items():
        m = measured(make, pairs)
        print(f"{name:15} step {1e3 * m['step']:7.2f} ms; inside: counted {1e3 * m['counted']:.3f} ms in "
              f"{m['window']:.0f} of {EVERY} steps, idle {1e3 * m['idle']:.3f} ms, look {1e3 * m['look']:.2f} ms: "
              f"{m['share']:.2%} of a step; paired: {1e3 * m['paired']:+.2f} ms", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
