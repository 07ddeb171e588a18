"""The files contract of time series: histories out of a user's file, and forecasts back into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from vqtool.api.files import Files
from vqtool.api.spec import Batch
from vqtool.errors import VqtoolError

Numbers = Sequence[float]
TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast of one series from one cutoff, in the series' own units and time stamps."""

    id: str
    cutoff: str  # the last stamp that was known
    ds: Sequence[str]  # [steps]
    median: Numbers  # [steps]
    quantiles: Mapping[str, Numbers]  # "0.1": [steps]; empty where there is one path only
    past_ds: Sequence[str]  # [L] the history that was read
    past: Numbers  # [L]
    actual: Numbers | None = None  # [steps] what came, in a backtest
    baselines: Mapping[str, Numbers] = field(default_factory=dict)  # the plain baselines' [steps], in a backtest

    @property
    def widths(self) -> list[float]:
        """[steps] of the outermost interval; there are two quantiles at least."""
        low, *_, high = self.quantiles.values()
        return [max(above - below, TINY) for below, above in zip(low, high, strict=True)]

    @property
    def deviations(self) -> list[float]:
        """[steps] how far the truth lay above the median, in `widths`; NaN where the truth is not known."""
        known = zip(self.actual or (), self.median, self.widths, strict=True)
        return [(truth - median) / width for truth, median, width in known]


class Histories(Protocol):
    """The rows that forecasts begin from."""

    batch: Batch  # what the task reads: `x` [B, C, L] and more
    keys: Sequence[str]  # [B] what a row is: its random draws depend on this alone
    notes: Sequence[str]  # what was done to the series, in sentences; they are reported
    warnings: Sequence[str]  # why the forecasts deserve less trust

    def forecasts(
        self,
        rows: range,
        paths: Tensor,
        quantiles: Sequence[float],
        *,
        known: bool = False,
        compared: Mapping[str, Tensor] | None = None,
    ) -> list[Forecast]:
        """The sample paths [len(rows), S, C, steps] of some rows as forecasts: one a row and channel.

        With `known` they are not sample paths but the median, and after it each of the `quantiles` (S = 1 + Q).
        `compared` [len(rows), C, steps] are further `baselines` of the forecasts, in the model's units.
        """
        ...

    def scores(self, forecasts: Sequence[Forecast]) -> dict[str, Any]:
        """`{"overall": scores, "series": {id: scores}}` of a backtest's forecasts.

        `scores` is `{"model": {metric: value}, "baselines": {name: {metric: value}}}`, in the series' own units.
        Other names beside the two go into the command's document as they are.
        """
        ...


class ForecastFiles(Files):
    """The files of a data kind whose series go on in time; `vqtool forecast` and `vqtool backtest` need them."""

    def histories(
        self,
        path: Path | None,
        *,
        steps: int,
        cutoff: str | None = None,
        windows: int | None = None,
        step_size: int | None = None,
    ) -> Histories:
        """Every series of a file up to a cutoff, as if later rows did not exist.

        Args:
            path: the user's file; None for the training data's.
            steps: how far the forecasts reach.
            cutoff: the last time stamp that is known; by default the file's last.
            windows: for a backtest, how many cutoffs each series has; the last of them is `steps` rows before the end.
            step_size: rows between two cutoffs; `steps` by default.

        Raises:
            VqtoolError: the file cannot be read, its steps are not the model's, or a series is too short.
        """
        raise NotImplementedError

    def training_options(self, path: Path | None, *, cutoff: str | None, leave_out: int) -> dict[str, Any]:
        """The data options that train on a file up to a cutoff, without the last `leave_out` rows of each series.

        Among them is the option `leave_out`, how many rows are left out in all, which `histories` obeys as well: both
        are what `vqtool backtest --refit` needs.

        Raises:
            VqtoolError: these data cannot leave out rows.
        """
        raise VqtoolError("--refit needs data that can leave out the last rows of each series, and these cannot")

    def save_forecasts(self, path: Path, forecasts: Sequence[Forecast]) -> None:
        """Write forecasts to a file of the format that its name ends in."""
        raise NotImplementedError

    def plot_forecasts(self, path: Path, forecasts: Sequence[Forecast]) -> None:
        """Draw forecasts to a picture."""
        raise NotImplementedError
