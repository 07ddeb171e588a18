"""One series of a file: its stamps, its values, and which of them were measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


WARNING = "warning: "  # how a note begins that is one


@dataclass(frozen=True, slots=True)
class Covariates:
    """Columns beside a series, also for times after its last value; see `vqtool_forecast.covariates`."""

    names: tuple[str, ...]  # [K]
    stamps: pd.Index  # [r]; once the series is on its calendar, that of the series and beyond
    values: NDArray[np.float64]  # [r, K], NaN where one is missing
    rows: NDArray[np.int64]  # [r] the file's row, from 1 on; 0: there is none


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """One series of a file."""

    id: str
    stamps: pd.Index  # [n]
    values: NDArray[np.float64]  # [n]
    rows: NDArray[np.int64]  # [n] the file's row of each value, from 1 on; 0: it was filled in
    covariates: Covariates | None = None

    def backwards(self) -> TimeSeries:
        """The last row first."""
        return replace(self, stamps=self.stamps[::-1], values=self.values[::-1], rows=self.rows[::-1])

    def only(self, known: NDArray[np.bool_] | NDArray[np.intp]) -> TimeSeries:
        """The rows that are known, or those at some places, in that order."""
        return replace(self, stamps=self.stamps[known], values=self.values[known], rows=self.rows[known])

    @property
    def measured(self) -> NDArray[np.bool_]:
        """[n] false where a value was filled in."""
        return self.rows > 0

    @property
    def measured_values(self) -> NDArray[np.float64]:
        """[n] the values, NaN where one was filled in."""
        return np.where(self.measured, self.values, np.nan)
