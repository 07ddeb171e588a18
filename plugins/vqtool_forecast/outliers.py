"""Values so far from all others that they are likely errors: named, and kept out of what a model reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtool_forecast.time_series import TimeSeries

FAR = 1000.0  # times as far from the median as 95 % of the values
USUAL = 0.95


def warnings(series: Sequence[TimeSeries]) -> list[str]:
    """One line on values that are likely errors; none where there are none."""
    found = [(one, far) for one in series if (far := _places(one.values)).any()]
    if not found:
        return []
    one, far = found[0]
    at = int(far.argmax())
    many = sum(int(far.sum()) for _, far in found)
    more = f", and {many - 1} more like it" if many > 1 else ""
    return [
        f"warning: series `{one.id}`: {one.values[at]:g} at {one.stamps[at]} is over {FAR:g} times as far from the "
        f"median as 95 % of the values{more}: likely an error; forecasts do not read it"
    ]


def _places(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values are so far off."""
    size = np.abs(values - np.median(values)) if len(values) else values
    if not len(size) or size.max() <= FAR * np.median(size):  # quick for most
        return np.zeros(len(values), dtype=bool)
    usual = np.quantile(size, USUAL)
    return (size > FAR * usual) & (usual > 0)


def without(histories: Tensor) -> Tensor:
    """Histories [..., L] in which the value before stands for one so far off, judged by each history alone."""
    median = histories.median(-1, keepdim=True).values
    size = (histories - median).abs()
    usual = size.quantile(USUAL, dim=-1, keepdim=True)
    far = (size > FAR * usual) & (usual > 0)
    if not bool(far.any()):
        return histories
    places = torch.arange(histories.shape[-1]).expand_as(histories).masked_fill(far, -1)
    last = places.cummax(-1).values
    kept = histories.gather(-1, last.clamp_min(0))
    return torch.where(last >= 0, kept, median)
