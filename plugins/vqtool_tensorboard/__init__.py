"""TensorBoard: every row of a run's metrics as scalars, in the run's own folder; does nothing without the extra."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from vqtool.catalog import hookimpl

SHOWN = 4  # reconstructions of a validation
HEARD = 4000, 192_000  # Hz; signals of such rates are sound

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
def vqtool_validated(run: Any, validation: Any) -> None:
    """How often each code is used, and reconstructions: pictures, sound, or curves where matplotlib is there."""
    writer = writer_of(run)
    if writer is None:
        return
    where, step = f"valid/{validation.stage}", validation.step
    for name, counts in validation.counts.items():
        add_use(writer, f"{where}/codes/{name}", counts.double(), step)
    pairs = validation.pairs(SHOWN)
    if pairs is None:
        return
    rate = validation.spec.sample_rate
    for name, signals in zip(("original", "reconstruction"), pairs, strict=True):
        if signals.ndim == 4 and signals.shape[1] in (1, 3):  # pictures
            low, high = pairs[0].amin(), pairs[0].amax()
            writer.add_images(f"{where}/{name}", ((signals - low) / (high - low).clamp_min(1e-9)).clamp(0, 1), step)
        elif signals.ndim == 3 and rate is not None and HEARD[0] <= rate <= HEARD[1]:
            for row, signal in enumerate(signals):
                loudest = pairs[0][row].abs().amax().clamp_min(1e-9)
                writer.add_audio(f"{where}/{name}/{row}", signal[:1] / loudest, step, sample_rate=int(rate))
    if pairs[0].ndim == 3 and importlib.util.find_spec("matplotlib") is not None:
        writer.add_figure(f"{where}/curves", curves(*pairs), step)


def add_use(writer: Any, name: str, counts: Any, step: int) -> None:
    """A histogram with one bucket for each code."""
    numbers = range(len(counts))
    places = counts.new_tensor(numbers)
    writer.add_histogram_raw(
        name, min=0, max=len(counts), num=int(counts.sum()), sum=float(counts @ places),
        sum_squares=float(counts @ places.square()), bucket_limits=[k + 1 for k in numbers],
        bucket_counts=counts.tolist(), global_step=step,
    )  # fmt: skip


def curves(originals: Any, reconstructions: Any) -> Any:
    """The first channel of every signal, and its reconstruction."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.6 * len(originals)), layout="constrained")
    axes = figure.subplots(len(originals), squeeze=False)[:, 0]
    for ax, original, reconstruction in zip(axes, originals, reconstructions, strict=True):
        ax.plot(original[0], label="original")
        ax.plot(reconstruction[0], label="reconstruction", linewidth=1)
    axes[0].legend(loc="upper right")
    return figure


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
