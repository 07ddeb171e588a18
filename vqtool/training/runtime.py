"""The machine a stage runs on: device, precision, seeds, ranks and signals."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vqtool.api.data import Batch
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.model.model import Model
from vqtool.model.precision import autocast, require_precision
from vqtool.recipe.spec import TrainOptions
from vqtool.training.peers import Peers


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where this process computes, and which of how many ranks it is."""

    device: torch.device
    rank: int = 0
    world: int = 1
    peers: Peers | None = None
    precision: str = "fp32"  # of models that are used; a stage has its own

    @property
    def is_main(self) -> bool:
        """Whether this rank prints and writes."""
        return self.rank == 0

    def to_device(self, batch: Batch) -> Batch:
        """The batch on this device."""
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def pinned(self, batch: Batch) -> Batch:
        """The batch in memory that a GPU copies from while other work goes on; elsewhere as it is."""
        return {name: value.pin_memory() for name, value in batch.items()} if self.device.type == "cuda" else batch

    def fetch(self, values: Tensor) -> Callable[[], list[float]]:
        """Start copying values [N] to the host; what is returned gives them, and waits for nothing computed later."""
        if self.device.type != "cuda":
            return values.tolist
        host = values.to("cpu", non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()

        def wait() -> list[float]:
            arrived.synchronize()
            return host.tolist()

        return wait

    def seed(self, seed: int) -> None:
        """Seed the generators of the host and of this device: `torch.manual_seed` costs a small step 5 % of its time.

        It formats the stack for every kind of device that is not there.
        """
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed_all(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def autocast(self, precision: str) -> contextlib.AbstractContextManager[None]:
        """The autocast context of a precision; fp32 computes plainly."""
        return autocast(self.device, precision)

    def require(self, options: TrainOptions) -> None:
        """Refuse what this machine cannot train in.

        Raises:
            VqtoolError: its device cannot compute in the precision, or there is no compiler and one is asked for.
        """
        require_precision(self.device, options.precision)
        if options.compile:
            require_compiler(self.device)

    def place(self, model: Model) -> None:
        """A model as it is used: here, evaluated, in this precision."""
        model.parts.to(self.device).eval()
        model.compute_in(self.precision)

    def any_rank(self, flag: int) -> int:
        """The largest `flag` over all ranks, so that they decide alike."""
        if self.world == 1:
            return flag
        value = torch.tensor([flag], device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return int(value.item())

    def broadcast_scalar(self, value: float) -> float:
        """Rank 0's `value` on every rank."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return float(tensor.item())

    def broadcast_path(self, path: Path | None) -> Path | None:
        """Rank 0's `path` on every rank."""
        text: str | None = self.broadcast_object(None if path is None else str(path))
        return None if text is None else Path(text)

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value on every rank: plain values, as JSON has them."""
        values = [value]
        if self.world > 1:
            dist.broadcast_object_list(values, 0)
        return values[0]

    def serve(self, run: Path) -> None:
        """Remember which run this is for: where a rank dies, the others name it."""
        if self.peers is not None:
            self.peers.run = run

    def broadcast_module(self, module: nn.Module) -> None:
        """Give every rank rank 0's parameters and buffers."""
        if self.world > 1:
            for value in module.state_dict().values():
                dist.broadcast(value, 0)


def pick_device(name: str) -> torch.device:
    """`auto` takes cuda, then mps, then cpu; a device that is not there is an error, never a silent fallback."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(d for d in ("cuda", "mps", "cpu") if there[d])
    kind = name.split(":")[0]
    if kind not in there:
        raise VqtoolError(f"there is no device called `{name}`", hint="--device auto, cpu, cuda or mps")
    if not there[kind]:
        raise VqtoolError(f"device `{kind}` is not available on this machine", hint="--device cpu", exit_code=1)
    if kind == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return torch.device(name)


@contextlib.contextmanager
def runtime(device: str = "auto", precision: str = "fp32") -> Iterator[Runtime]:
    """This process's runtime; joins the other ranks when started by `torchrun`, and leaves them at the end.

    Raises:
        VqtoolError: the device is not there, or cannot compute in the precision.
    """
    where = pick_device(device)
    require_precision(where, precision)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Runtime(where, precision=precision)
        return
    if where.type == "cuda":
        torch.cuda.set_device(where)
    joined = not dist.is_initialized()
    if joined:
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    rank = dist.get_rank()
    if rank != 0:
        out.mute()
    peers = Peers(rank, dist.get_world_size())
    properly = False
    try:
        yield Runtime(where, rank, dist.get_world_size(), peers, precision)
        properly = True
    except Exception as error:
        reason = None if isinstance(error, VqtoolError) else peers.explain()
        if reason is None:
            raise
        raise reason from error
    finally:
        if peers.gone is None or where.type == "cpu":  # NCCL would wait for the dead; `peers` ends the process then
            peers.leave(properly=properly)
            if joined:
                dist.destroy_process_group()


@functools.cache
def require_compiler(device: torch.device) -> None:
    """Compile one addition: without a compiler `compile = true` would fail at the first step.

    Raises:
        VqtoolError: it cannot be done on this machine.
    """
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise VqtoolError(f"`compile = true` does not work on this machine: {reason.strip()}",
                          hint="compile = false, or install a C++ compiler", exit_code=1) from error  # fmt: skip


def deterministic(on: bool) -> None:
    """Choose deterministic kernels, also where that is slower; must come before CUDA starts."""
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if on or torch.are_deterministic_algorithms_enabled():  # the call alone imports torch._dynamo: two seconds
        torch.use_deterministic_algorithms(on)


class Signals:
    """Catches SIGINT and SIGTERM: the first asks a stage to stop after the step, the second aborts.

    With `at_once` the first aborts, as where nothing is to be saved.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.received, self.at_once = 0, at_once
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not in the main thread: then nobody signals us
                self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _catch(self, number: int, _: FrameType | None) -> None:
        if self.received or self.at_once:
            self.received = number
            raise KeyboardInterrupt
        self.received = number
        out.warn(f"{signal.Signals(number).name}: finishing this step, then saving; a second one aborts")
