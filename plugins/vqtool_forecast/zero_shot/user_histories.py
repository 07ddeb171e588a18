"""A user's file of any frequency, as histories to forecast from by a model that never saw it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import Batch, DataSpec, Forecast, ForecastFiles, Histories, Piece
from vqtool.errors import VqtoolError, missing_extra
from vqtool.sequence.forecasting import path_quantiles
from vqtool_forecast import frequency, outliers, output, times
from vqtool_forecast.read_series import WARNING, Reading, read_series
from vqtool_forecast.read_table import about_file
from vqtool_forecast.scores import backtest_scores
from vqtool_forecast.time_series import TimeSeries
from vqtool_forecast.user_file import long_enough, read_options
from vqtool_forecast.zero_shot.frame import SHORTEST, framed, longest_history
from vqtool_forecast.zero_shot.seasons import seasons_of


class AnySeriesFiles(ForecastFiles):
    """Reads series of any frequency and length; the model needs to know nothing of them beforehand."""

    def __init__(
        self, spec: DataSpec, options: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None
    ) -> None:
        self.spec, self.options, self.asked = spec, options or {}, asked or {}
        self.reading: tuple[Any, Reading] | None = None  # the last file that was read

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """Not possible: the tokens are those of forecasts, not of histories."""
        raise VqtoolError(
            "this model has tokens for what is forecast, not for a file", hint="vqtool forecast --steps N"
        )

    def save(self, path: Path, pieces: Iterator[Piece]) -> list[Path]:
        """Not possible; see `open`."""
        raise VqtoolError(
            "this model has tokens for what is forecast, not for a file", hint="vqtool forecast --steps N"
        )

    def histories(
        self,
        path: Path | None,
        *,
        steps: int,
        cutoff: str | None = None,
        windows: int | None = None,
        step_size: int | None = None,
    ) -> AnyHistories:
        """Every series of a file up to a cutoff, or up to several of them."""
        file = path or self.options.get("path")
        if file is None:
            raise VqtoolError("which series should be forecast?", hint="--data FILE.csv")
        if self.reading is None or self.reading[0] != (file, cutoff):
            self.reading = (file, cutoff), read_series(file, read_options({}, self.asked), cutoff)
        series, freq, notes = self.reading[1]
        notes = list(notes)
        step = step_size or steps
        after = 0 if windows is None else steps + (windows - 1) * step
        with about_file(file):
            series = long_enough(series, SHORTEST, after, notes)
        back = [0] if windows is None else [steps + step * k for k in range(windows - 1, -1, -1)]
        found = AnyHistories(series, freq, notes, steps=steps, back=back, backtest=windows is not None)
        found.auto_theta = bool({**self.options, **self.asked}.get("auto_theta"))
        return found

    def save_forecasts(self, path: Path, forecasts: Sequence[Forecast]) -> None:
        """`unique_id, ds, median, q0.1, ...` as CSV or Parquet; with `cutoff` and `y` where the truth is known."""
        output.write_forecasts(path, forecasts)

    def plot_forecasts(self, path: Path, forecasts: Sequence[Forecast]) -> None:
        """A picture of histories, medians and fans."""
        output.plot_forecasts(path, forecasts)


class AnyHistories(Histories):
    """Each series cut `back` rows before its end, in the frame; a row depends on what stands before its cut alone."""

    def __init__(
        self,
        series: Sequence[TimeSeries],
        freq: str,
        notes: list[str],
        *,
        steps: int,
        back: Sequence[int],
        backtest: bool,
    ) -> None:
        self.series, self.freq, self.notes, self.steps, self.backtest = series, freq, notes, steps, backtest
        self.warnings = [note.removeprefix(WARNING) for note in notes if note.startswith(WARNING)]
        notes[:] = [note for note in notes if not note.startswith(WARNING)]
        self.seasons = seasons_of(freq)
        self.rows = [(s, len(one.values) - b) for s, one in enumerate(series) for b in back]
        self.pasts = [self._history(*row) for row in self.rows]
        self.batch: Batch
        self.batch, self.centre, self.scale = framed(self.pasts, self.seasons, steps)
        calendars = {(one.stamps[0], len(one.stamps)): one.stamps for one in series}
        self.clock = any(times.has_clock(stamps) for stamps in calendars.values())
        self.keys = [f"{series[s].id}@{series[s].stamps[at - 1]}" for s, at in self.rows]
        self.written: dict[Any, list[str]] = {}  # the stamps around each cutoff, which most series share
        self.auto_theta = False  # whether AutoTheta stands among what is compared with

    def _history(self, s: int, at: int) -> NDArray[np.float64]:
        """The last values before row `at` as they were known then: filled values may depend on later ones."""
        one = self.series[s]
        begin = max(0, at - longest_history(self.seasons))
        values, known = one.values[begin:at].copy(), np.flatnonzero(one.measured[begin:at])
        if len(known):
            values[known[-1] + 1 :] = values[known[-1]]
        return outliers.without(torch.from_numpy(values)[None])[0].numpy()

    def forecasts(
        self,
        rows: range,
        paths: Tensor,
        quantiles: Sequence[float],
        *,
        known: bool = False,
        compared: Mapping[str, Tensor] | None = None,
    ) -> list[Forecast]:
        """Paths [len(rows), S, 1, steps] as forecasts; with `known` the median and the quantiles.

        `compared` are forecasts [len(rows), 1, steps] to compare with, in the model's units.
        """
        own = self._own(paths[:, :, 0], rows)
        drawn = own.shape[1] > 1 and not known
        levels = list(quantiles) if drawn or known else []
        median = own.quantile(0.5, dim=1) if drawn else own[:, 0]
        spread = path_quantiles(own, levels) if drawn else own[:, 1:].movedim(1, 0)
        others = {name: self._own(value, rows)[:, 0] for name, value in (compared or {}).items()}
        if self.auto_theta and compared is not None:
            pasts = self.pasts[rows.start : rows.stop]
            others["auto-theta"] = torch.from_numpy(auto_theta(pasts, self.seasons[0], self.steps))
        return [
            self._forecast(
                row, median[b].tolist(), {f"{q:g}": spread[i, b].tolist() for i, q in enumerate(levels)},
                {name: value[b].tolist() for name, value in others.items()},
            )
            for b, row in enumerate(rows)
        ]  # fmt: skip

    def _own(self, values: Tensor, rows: range) -> Tensor:
        """Values [len(rows), S, steps] in the series' own units."""
        centre, scale = (v[rows.start : rows.stop, None, None] for v in (self.centre, self.scale))
        return values.double() * scale + centre

    def _forecast(
        self, row: int, median: list[float], quantiles: dict[str, list[float]], others: dict[str, list[float]]
    ) -> Forecast:
        s, at = self.rows[row]
        one, before = self.series[s], len(self.pasts[row])
        last, come = one.stamps[at - 1], slice(at, at + self.steps)
        if (last, before) not in self.written:
            ahead = one.stamps[come] if self.backtest else frequency.following(last, self.freq, self.steps)
            self.written[last, before] = times.written(one.stamps[at - before : at].append(ahead), self.clock)
        stamps = self.written[last, before]
        return Forecast(
            one.id, stamps[before - 1], stamps[before:], median, quantiles, stamps[:before],
            one.values[at - before : at].tolist(),
            one.measured_values[come].tolist() if self.backtest else None,
            others,
        )  # fmt: skip

    def scores(self, forecasts: Sequence[Forecast]) -> dict[str, Any]:
        """Every metric of the model and of what it is compared with; MASE against what came before the first cutoff."""
        first = {s: min(at for t, at in self.rows if t == s) for s in range(len(self.series))}
        before = {one.id: one.measured_values[: first[s]] for s, one in enumerate(self.series)}
        return {"windows_trained_on": None, **backtest_scores(forecasts, before, self.seasons[0], self.notes)}


def auto_theta(pasts: Sequence[NDArray[np.float64]], season: int, steps: int) -> NDArray[np.float64]:
    """[n, steps] the forecasts of AutoTheta, from the library statsforecast.

    Raises:
        VqtoolError: it is not installed.
    """
    try:
        from statsforecast.models import AutoTheta
    except ImportError as error:
        raise missing_extra("statsforecast", "statistics", "auto_theta") from error
    return np.stack([AutoTheta(season_length=season).forecast(past, h=steps)["mean"] for past in pasts])
