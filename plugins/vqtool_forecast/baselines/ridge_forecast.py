"""Closed-form linear forecasts, one for each horizon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqtool.api import Baseline, Batch, Rows
from vqtool_forecast.ridge import fit_ridges


class RidgeForecast(Baseline):
    """Ridge regression from the history to the future, both less the history's last value; one matrix for all series.

    Fitted on all training windows of each horizon; the penalty, one of six, is the best on the validation windows. It
    is what NLinear (Zeng et al., AAAI 2023) converges to, and seconds of work.
    """

    def fit(self, rows: Rows) -> None:
        """Solve for every horizon."""
        self.fitted = fit_ridges(rows, self.spec.about["horizons"])  # type: ignore[arg-type]  # rows of `series`

    def predict(self, batch: Batch) -> Mapping[str, Any]:
        """`forecast` [B, C, H] of the longest horizon, and `by_horizon` those of each horizon's own fit."""
        each = {horizon: one.predict(batch["x"]) for horizon, one in self.fitted.items()}
        return {"forecast": each[self.spec.about["horizon"]], "by_horizon": each}
