"""What a data kind offers to `forecast` and `backtest`: histories out of a user's file, and forecasts back into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from vqtool.api.data import Batch, DataSpec

Numbers = Sequence[float]


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
    rivals: Mapping[str, Numbers] = field(default_factory=dict)  # the plain baselines' [steps], in a backtest


class Histories(Protocol):
    """The rows a forecast begins from."""

    batch: Batch  # what the task reads: `x` [B, C, L] and more
    keys: Sequence[str]  # [B] what a row is: its random draws depend on this alone
    notes: Sequence[str]  # to be said aloud
    warnings: Sequence[str]  # what makes the forecasts less to be trusted

    def forecasts(
        self, rows: range, paths: Tensor, quantiles: Sequence[float], *, known: bool = False
    ) -> list[Forecast]:
        """The sample paths [len(rows), S, C, steps] of some rows as forecasts: one a row and channel.

        With `known` they are no draws but the median, and after it each of the `quantiles` (S = 1 + Q).
        """
        ...

    def scores(self, forecasts: Sequence[Forecast]) -> dict[str, Any]:
        """`{"overall": scores, "series": {id: scores}}` of a backtest's forecasts.

        `scores` is `{"model": {metric: value}, "baselines": {name: {metric: value}}}`, in the series' own units.
        Other names beside the two go into the command's document as they are.
        """
        ...


@runtime_checkable
class Continues(Protocol):
    """A data class, whose files go on in time; these are class methods, and need a checkpoint's spec only."""

    def histories(
        self,
        spec: DataSpec,
        path: Path | None,
        options: Mapping[str, Any],
        *,
        asked: Mapping[str, Any],
        steps: int,
        cutoff: str | None = None,
        windows: int | None = None,
        step_size: int | None = None,
    ) -> Histories:
        """Every series of a file up to `cutoff`, as if later rows did not exist.

        `options` are the training data's, and without a `path` it is their file that is read; `asked` are those that
        the user set for this call. With `windows`, as many cutoffs a series, `step_size` rows apart, the last of them
        `steps` rows before the end.
        """
        ...

    def write_forecasts(self, path: Path, forecasts: Sequence[Forecast]) -> None:
        """Write them to a file of the kind that its name says."""
        ...

    def plot_forecasts(self, path: Path, forecasts: Sequence[Forecast]) -> None:
        """Draw them to a picture."""
        ...
