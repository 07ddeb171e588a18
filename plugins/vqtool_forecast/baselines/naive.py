"""Tomorrow is like the last value."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vqtool.api import Baseline, Batch
from vqtool_forecast import rivals


class Naive(Baseline):
    """Repeats the last value of the history."""

    def predict(self, batch: Batch) -> Mapping[str, Tensor]:
        """`forecast` [B, C, H]."""
        return {"forecast": rivals.naive(batch["x"], self.spec.about["horizon"])}
