"""Timing in turns: every variant once per round, medians over rounds; and peak memory of one call."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Call = Callable[[], Any]
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Figure:
    """One variant's figures: median and fastest milliseconds of a call, and MiB above what was held before it."""

    ms: float
    fastest_ms: float
    mib: float | None

    def beside(self, first: Figure) -> dict[str, float | None]:
        """Its figures, with the ratio to the time of `first`."""
        return {"ms": self.ms, "mib": self.mib, "ratio": self.ms / first.ms}


def in_turns(calls: Mapping[str, Call], device: torch.device, *, seconds: float, most: int = 9) -> dict[str, Figure]:
    """Call each variant once per round, at most `most` rounds in about `seconds`; the first call warms up.

    With one thread the time is the process's CPU time, so that other processes on the machine disturb it little;
    with more it is wall-clock time.
    """
    memory = {name: peak_memory(call, device) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    while len(times[next(iter(times))]) < most:
        for name, call in calls.items():
            times[name].append(timed(call, device))
        done = len(times[next(iter(times))])
        if done >= 3 and (time.perf_counter() - begin) * (done + 1) / done > seconds:
            break
    return {n: Figure(statistics.median(t), min(t), memory[n]) for n, t in times.items()}


def evaluated(module: nn.Module, x: Tensor) -> Call:
    """One evaluation without gradients."""
    module.eval()

    @torch.no_grad()
    def call() -> None:
        module(x)

    return call


def timed(call: Call, device: torch.device) -> float:
    """Milliseconds of one call; on CUDA between two events, so that waiting for the device is not counted."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    call()
    return 1000 * (clock() - begin)


def peak_memory(call: Call, device: torch.device) -> float | None:
    """MiB that one call holds at its peak above what was held before; None where that cannot be measured."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    try:
        ctypes.CDLL(None).malloc_trim(0)  # glibc: give back what was freed, so that it is counted when taken again
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
        held = resident("VmRSS")
        call()
        return max(0.0, resident("VmHWM") - held)
    except (OSError, AttributeError):
        call()
        return None


def resident(which: str) -> float:
    """MiB of this process's memory, now (VmRSS) or at its peak (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) / 1024
    raise OSError(which)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    load: float | None = None
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
        load = float(Path("/proc/loadavg").read_text().split()[0])
    clock = "cpu time" if device.type == "cpu" and torch.get_num_threads() == 1 else "wall"
    return {
        "cpu": name,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clock": "cuda events" if device.type == "cuda" else clock,
        "load_average": load,  # above the number of threads: others were computing too
    }
