"""One series of a file: its stamps, its values, and which of them were measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """One series of a file."""

    id: str
    stamps: pd.Index  # [n]
    values: NDArray[np.float64]  # [n]
    rows: NDArray[np.int64]  # [n] the file's row of each value, from 1 on; 0: it was filled in

    def backwards(self) -> TimeSeries:
        """The last row first."""
        return TimeSeries(self.id, self.stamps[::-1], self.values[::-1], self.rows[::-1])

    def only(self, known: NDArray[np.bool_]) -> TimeSeries:
        """The rows that are known."""
        return TimeSeries(self.id, self.stamps[known], self.values[known], self.rows[known])

    @property
    def measured(self) -> NDArray[np.bool_]:
        """[n] false where a value was filled in."""
        return self.rows > 0

    @property
    def measured_values(self) -> NDArray[np.float64]:
        """[n] the values, NaN where one was filled in."""
        return np.where(self.measured, self.values, np.nan)
