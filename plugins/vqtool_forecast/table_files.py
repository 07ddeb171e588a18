"""What every forecaster does with users' files: how they are read, and forecasts under the series' own time stamps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vqtool.api import DataSpec, Forecast, ForecastFiles, Histories
from vqtool.errors import VqtoolError
from vqtool.sequence.forecasting import path_quantiles
from vqtool_forecast import frequency, output, times
from vqtool_forecast.columns import ReadOptions
from vqtool_forecast.time_series import WARNING, TimeSeries

READ_OPTIONS = tuple(field.name for field in dataclasses.fields(ReadOptions))
OF_THE_FILE = (
    "series",
    "freq",
    "time_format",
    "timezone",
    "encoding",
    "decimal",
    "header",
    "repeated",
    "sort",
    "until",
    "leave_out",
)  # options that hold for the training file alone


class TableFiles(ForecastFiles):
    """How files of series are read, and forecasts written: the same for every forecaster."""

    def __init__(
        self, spec: DataSpec, options: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None
    ) -> None:
        self.spec, self.options, self.asked = spec, options or {}, asked or {}

    def save_forecasts(self, path: Path, forecasts: Sequence[Forecast]) -> None:
        """`unique_id, ds, median, q0.1, ...` as CSV or Parquet; with `cutoff` and `y` where the truth is known."""
        output.write_forecasts(path, forecasts)

    def plot_forecasts(self, path: Path, forecasts: Sequence[Forecast]) -> None:
        """A picture of histories, medians and fans."""
        output.plot_forecasts(path, forecasts)

    def training_options(self, path: Path | None, *, cutoff: str | None, leave_out: int) -> dict[str, Any]:
        """As the file is read for forecasts, but for what comes after the cutoff and the last rows of each series."""
        file = path or self.options.get("path")
        if file is None:
            raise VqtoolError("which series should be forecast?", hint="--data FILE.csv")
        how = dataclasses.asdict(self._read_options(another=path is not None))
        how |= {"path": Path(file).absolute(), "leave_out": how["leave_out"] + leave_out}
        return how | ({"until": cutoff} if cutoff else {})

    def _is_training_file(self, path: Path | None) -> bool:
        """Whether this is the file of the training data; no path stands for it."""
        trained = Path(self.options.get("path") or "")
        return path is None or (path.is_file() and trained.is_file() and path.samefile(trained))

    def _read_options(self, *, another: bool) -> ReadOptions:
        """As the training data were read, unless asked otherwise; `another` file has series and stamps of its own."""
        kept = {name: value for name, value in self.options.items() if not (another and name in OF_THE_FILE)}
        return ReadOptions(**{name: value for name, value in {**kept, **self.asked}.items() if name in READ_OPTIONS})


class TableHistories(Histories):
    """Forecasts of series under their own time stamps; `notes` that are warnings become `warnings`."""

    def __init__(
        self, series: Sequence[TimeSeries], freq: str, notes: list[str], *, steps: int, backtest: bool
    ) -> None:
        self.series, self.freq, self.notes, self.steps, self.backtest = series, freq, notes, steps, backtest
        self.warnings = [note.removeprefix(WARNING) for note in notes if note.startswith(WARNING)]
        notes[:] = [note for note in notes if not note.startswith(WARNING)]
        self.written: dict[Any, list[str]] = {}  # the stamps around each cutoff, which most series share
        calendars = {(one.stamps[0], len(one.stamps)): one.stamps for one in series}
        self.clock = any(times.has_clock(stamps) for stamps in calendars.values())

    def _forecast(
        self, s: int, begin: int, at: int, median: Tensor, quantiles: Mapping[str, Tensor], others: Mapping[str, Tensor]
    ) -> Forecast:
        """The forecast of series `s` from its rows `begin` to `at`; each value [steps] in the series' own units."""
        one, last, come = self.series[s], self.series[s].stamps[at - 1], slice(at, at + self.steps)
        if (last, at - begin) not in self.written:
            ahead = one.stamps[come] if self.backtest else frequency.following(last, self.freq, self.steps)
            self.written[last, at - begin] = times.written(one.stamps[begin:at].append(ahead), self.clock)
        stamps, known = self.written[last, at - begin], at - begin
        return Forecast(
            one.id,
            stamps[known - 1],
            stamps[known:],
            median.tolist(),
            {name: value.tolist() for name, value in quantiles.items()},
            stamps[:known],
            one.values[begin:at].tolist(),
            one.measured_values[come].tolist() if self.backtest else None,
            {name: value.tolist() for name, value in others.items()},
        )


def median_and_quantiles(own: Tensor, levels: Sequence[float], *, known: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """The median [B, ...] and each quantile [B, ...] of paths [B, S, ...].

    With `known` the paths are the median and the quantiles themselves. One path has no quantiles.
    """
    if known:
        return own[:, 0], {f"{level:g}": own[:, 1 + i] for i, level in enumerate(levels)}
    if own.shape[1] == 1:
        return own[:, 0], {}
    spread = path_quantiles(own, levels)
    return own.quantile(0.5, dim=1), {f"{level:g}": spread[i] for i, level in enumerate(levels)}


def long_enough(
    series: Sequence[TimeSeries], lookback: int, after: int, notes: list[str], *, strict: bool = False
) -> list[TimeSeries]:
    """Those series that have a history before their first forecast; the others are named in a warning.

    Raises:
        VqtoolError: none has, or one has not where all are needed (`strict`).
    """
    short = [one for one in series if len(one.values) < lookback + after]
    if not short:
        return list(series)
    one, more = short[0], f", and the windows another {after}" if after else ""
    what = f"series `{one.id}` has {len(one.values)} rows, up to {one.stamps[-1]}; the model reads {lookback}{more}"
    if strict or len(short) == len(series):
        raise VqtoolError(
            what, hint="fewer --n-windows or a shorter --horizon" if after else "a later --cutoff, or a longer file"
        )
    notes.append(f"{WARNING}{len(short)} of {len(series)} series are too short and left out: {what}")
    return [one for one in series if len(one.values) >= lookback + after]
