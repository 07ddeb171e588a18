"""TensorBoard: every row of a run's metrics as scalars, in the run's own folder; does nothing without the extra."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from vqtool.catalog import hookimpl

_writers: dict[str, Any] = {}  # by the run's folder


@hookimpl
def vqtool_metrics(run: Any, row: Mapping[str, Any]) -> None:
    """`train/tokenizer/mse` and the like, over the step of the stage; `tensorboard --logdir runs` shows them."""
    writer = writer_of(run)
    if writer is None:
        return
    for name, value in row.items():
        if isinstance(value, int | float) and name not in ("step", "seconds"):
            writer.add_scalar(f"{row['split']}/{row['stage']}/{name}", value, row["step"])


@hookimpl
def vqtool_run_finished(run: Any) -> None:
    """Write what is left."""
    writer = _writers.pop(str(run.folder), None)
    if writer is not None:
        writer.close()


@contextlib.contextmanager
def without_host() -> Iterator[None]:
    """The names of TensorBoard's files hold the machine's name, and a run's folder is passed on: leave it out."""
    before = socket.gethostname
    socket.gethostname = lambda: "run"
    try:
        yield
    finally:
        socket.gethostname = before


def writer_of(run: Any) -> Any:
    """The run's writer, made when its first row comes; None where TensorBoard is not installed."""
    key = str(run.folder)
    if key not in _writers and importlib.util.find_spec("tensorboard") is not None:
        from torch.utils.tensorboard import SummaryWriter

        with without_host():
            _writers[key] = SummaryWriter(str(run.folder / "tensorboard"))
    return _writers.get(key)
