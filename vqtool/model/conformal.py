"""Conformal intervals: the quantiles of forecasts, by how far the truth lay from past forecasts of the same file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vqtool.api import Forecast
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.model.forecasting import Forecaster

WINDOWS = 8  # past forecasts of each series, as far as its length allows
FEWEST = 20  # values to calibrate on
Numbers = NDArray[np.float64]


def calibrated(
    forecasts: Sequence[Forecast], forecaster: Forecaster, data: Path | None, cutoff: str | None, device: torch.device
) -> list[Forecast]:
    """The forecasts with each quantile as far from the median as the same share of past values was.

    Distances are counted in widths of the model's own outermost interval at that step, over all series and windows
    together (split conformal prediction with a scaled score; Vovk et al. 2005, "Algorithmic Learning in a Random
    World"). What they promise is a share over all values of a file, where its future is as its past.

    Raises:
        VqtoolError: the forecasts have no quantiles, or the file is too short for past forecasts.
    """
    if len(forecasts[0].quantiles) < 2:
        raise VqtoolError(f"--conformal moves quantiles apart, and these forecasts have {len(forecasts[0].quantiles)}",
                          hint="--quantiles 0.1,0.5,0.9, and several --samples without --greedy")  # fmt: skip
    steps = len(forecasts[0].median)
    past: list[Forecast] = []
    for windows in range(WINDOWS, 0, -1):
        try:
            rows = forecaster.files.histories(data or forecaster.file, steps=steps, cutoff=cutoff, windows=windows,
                                              step_size=max(1, steps // 2))  # fmt: skip
        except VqtoolError:  # every series is too short for so many: the file has been read before without an error
            continue
        for warning in rows.warnings:  # as that these windows were trained on, or that some series are left out
            out.warn(f"calibration: {warning}")
        past = forecaster.forecasts(rows, steps, device)
        break
    scores = np.array([value for one in past for value in one.deviations if not math.isnan(value)])
    if len(scores) < FEWEST:
        raise VqtoolError(
            f"--conformal needs past forecasts of at least {FEWEST} values; this file has room for {len(scores)}",
            hint="a longer file, fewer --steps, or leave --conformal out",
        )
    out.say(f"quantiles calibrated on {len(scores)} past values, {windows} forecasts of each series")
    return [moved(one, np.sort(scores)) for one in forecasts]


def moved(one: Forecast, scores: Numbers) -> Forecast:
    """A forecast with the quantiles that sorted `scores` give: the k-th of n is the quantile k / (n + 1)."""
    median, unit = np.asarray(one.median), np.asarray(one.widths)
    least = 0.0 if min(one.past) >= 0 else -np.inf
    places = np.arange(1, len(scores) + 1) / (len(scores) + 1)
    quantiles = {name: np.maximum(median + unit * np.interp(float(name), places, scores), least).tolist()
                 for name in one.quantiles}  # fmt: skip
    return dataclasses.replace(one, quantiles=quantiles)
