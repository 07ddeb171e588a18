"""The metric and baseline contracts: what is measured on held-out rows, and the plain baselines measured beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from vqtool.api.data import Batch, DataSpec, Rows
from vqtool.api.task import Parts


class Metric:
    """Accumulates over the batches of a split. Built with the `DataSpec`; keyword-only parameters are options.

    `update` reads names like a loss. A metric that reads `x_hat` is computed for every estimate that the task gives
    (free-running, teacher-forced, reconstruction), under that estimate's prefix, and for every baseline.

    A metric that `learns` is shown the training rows first, by `learn`, which reads names just as `update` does: a
    probe is fitted on what the model makes of them. Validation while a stage trains leaves that out.

    A metric that is for other data than the spec's raises `UnfitError` when it is made (`expect_windows`,
    `expect_images`). It is left out where the recipe names no metrics, and an error where it names this one.
    """

    learns: ClassVar[bool] = False

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    def update(self, *args: Any, **named: Any) -> None:  # a subclass names what it reads, all by keyword
        """Take one batch."""
        raise NotImplementedError

    def learn(self, *args: Any, **named: Any) -> None:
        """Take one batch of training rows; of metrics that `learns` only."""
        raise NotImplementedError

    def compute(self) -> Mapping[str, float]:
        """Dotted metric names and values over everything seen so far; ratios are fractions."""
        raise NotImplementedError


class Baseline:
    """A plain model to compare with: fitted on the training rows, scored by the same metrics on the same rows."""

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    def prepare(self, parts: Parts) -> None:
        """Called first: take from the model what a fair baseline must share, such as the channel it sends over."""

    def fit(self, rows: Rows) -> None:
        """Fit on the training rows."""

    def predict(self, batch: Batch) -> Mapping[str, Any]:
        """What metrics read, e.g. `{"x_hat": [B, C, L]}` in the signal's own units; reads conditions only.

        `x_hat` may be several estimates by name, as in `Estimates`.
        """
        raise NotImplementedError
