"""The two ends of every plot: a matplotlib figure without a window, and its content as a file's."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from vqtool.errors import missing_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
