"""The mean of the history's seasons over and over."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vqtool.api import Baseline, Batch, Rows
from vqtool_forecast import rivals


class SeasonalMean(Baseline):
    """Repeats the mean of all whole seasons of the history; of one season where the history is shorter than that."""

    def fit(self, rows: Rows) -> None:
        """Keep the rows, for histories of at least a season."""
        self.rows = rows

    def predict(self, batch: Batch) -> Mapping[str, Tensor]:
        """`forecast` [B, C, H]."""
        about = self.spec.about
        x = rivals.of_a_season(self.rows, batch, about["season"])
        return {"forecast": rivals.seasonal_mean(x, about["season"], about["horizon"])}
