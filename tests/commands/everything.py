"""A plugin whose task and data claim to do everything and fail at it: a command that refuses comes not so far."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from annotated_doc import Doc

from vqtool.api import ForecastFiles
from vqtool.parts.data.arrays import Arrays
from vqtool.parts.tasks.autoencode import Autoencode


def work(*_: Any, **__: Any) -> Any:
    """Fail."""
    raise AssertionError("work was done")


class Everything(Autoencode):
    """Squeezes signals through a codebook, and claims to do all else."""

    generate = forecast = embed = classify = transmit = send = observe = receive = work


class SignalFiles(ForecastFiles):
    """Files that claim to hold series that go on in time."""

    open = save = histories = save_forecasts = plot_forecasts = work

    def __init__(self, *_: Any) -> None:
        pass


class Signals(Arrays):
    """Arrays that claim to go on in time, and that may name another file."""

    files = SignalFiles

    def __init__(self, *, path: Annotated[Path, Doc("an .npz file")],
                 other: Annotated[Path | None, Doc("another file")] = None) -> None:  # fmt: skip
        super().__init__(path=path)
