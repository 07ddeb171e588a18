"""What a CodebookMonitor costs of a training step: `python -m tests.bench.monitor_cost`.

One thread of a CPU, B*T 4096 tokens, D 64, K 1024: a small autoencoder with one codebook, and with 8 residual levels.
A step with the monitor counting and one with it idle follow each other, in turns first; the median of their differences
is what counting costs, and a look is timed by itself: (window * counting + look) / (every * step) of all steps. A
monitor that is idle (its hooks return at once) is compared with none in the same way. Times are of the process, so that
others on the machine do not count.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import vqtool
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
    """Seconds of a step, and what counting and an idle monitor add to it; of a look; and the share of all steps."""
    torch.manual_seed(0)
    model = Autoencoder(make())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if isinstance(model.quantizer, vqtool.api.Quantizer):
        vqtool.attach(optimizer, model)
    x = torch.randn(8, TOKENS // 8, DIM)

    def step() -> float:
        began = time.process_time()
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
        return time.process_time() - began

    for _ in range(5):
        step()
    alone, idle, counting = [], [], []
    with vqtool.CodebookMonitor(model, every=EVERY) as monitor:
        for number in (1, EVERY - 1, EVERY):  # plugins load at the first look
            step()
            monitor.look(number)
        window = monitor._window()
        for pair in range(pairs):
            for is_open in (True, False) if pair % 2 else (False, True):
                monitor.gate.open = is_open
                (counting if is_open else idle).append(step())
        looks = []
        for number in range(2, 9):
            monitor.gate.open = True
            step()
            began = time.process_time()
            monitor.look(number * EVERY)
            looks.append(time.process_time() - began)
    rest = []
    for pair in range(pairs):
        for watched in (True, False) if pair % 2 else (False, True):
            if watched:
                with vqtool.CodebookMonitor(model, every=EVERY) as monitor:
                    monitor.gate.open = False
                    rest.append(step())
            else:
                alone.append(step())
    whole, look = statistics.median(alone), statistics.median(looks)
    counts = statistics.median(a - b for a, b in zip(counting, idle, strict=True))
    hooks = statistics.median(a - b for a, b in zip(rest, alone, strict=True))
    share = (window * counts + look) / (EVERY * whole) + hooks / whole
    return {"step": whole, "counting": counts, "idle": hooks, "look": look, "window": window, "share": share}


def main(pairs: int = 40) -> None:
    """Print a row for each quantizer."""
    torch.set_num_threads(1)
    for name, make in quantizers().items():
        m = measured(make, pairs)
        print(f"{name:15} step {1e3 * m['step']:7.2f} ms  counting {1e3 * m['counting']:+.3f} ms in {m['window']:.0f} "
              f"of {EVERY} steps  idle {1e3 * m['idle']:+.3f} ms  look {1e3 * m['look']:.2f} ms  "
              f"cost {m['share']:.2%} of a step", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
