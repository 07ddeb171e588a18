"""The two ends of every plot: a matplotlib figure without a window, and its content as a file's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from vqtool.errors import VqtoolError, missing_extra
from vqtool.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def check(path: Path) -> None:
    """Before anything is computed: the file of `--plot` can be drawn.

    Raises:
        VqtoolError: the ending is unknown, or matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise VqtoolError(f"`{path}` is not a picture that can be drawn", hint=f"end it in {', '.join(FORMATS)}")
    figure("`--plot`", 1, 1)


def figure(asked_by: str, width: float, height: float) -> Figure:
    """A figure of that size in inches.

    Raises:
        VqtoolError: matplotlib is not installed; `asked_by` is the option that needs it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "plot", asked_by) from error
    return Figure(figsize=(width, height), layout="constrained")


def encoded(drawn: Figure, kind: str = "png") -> bytes:
    """The figure as a file of that kind holds it."""
    content = io.BytesIO()
    drawn.savefig(content, format=kind, dpi=120)
    return content.getvalue()


def write(drawn: Figure, path: Path) -> None:
    """Write the figure in the format of the file's ending, whole or not at all."""
    write_atomic(path, encoded(drawn, path.suffix[1:].lower()))
