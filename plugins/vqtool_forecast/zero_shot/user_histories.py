"""A user's file of any frequency, as histories to forecast from by a model that never saw it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import Batch, DataSpec, Forecast, Piece
from vqtool.errors import VqtoolError, missing_extra
from vqtool_forecast import covariates, outliers
from vqtool_forecast.read_series import Reading, read_series
from vqtool_forecast.read_table import about_file
from vqtool_forecast.scores import backtest_scores
from vqtool_forecast.table_files import TableFiles, TableHistories, long_enough, median_and_quantiles
from vqtool_forecast.time_series import TimeSeries
from vqtool_forecast.zero_shot.frame import SHORTEST, framed, longest_history
from vqtool_forecast.zero_shot.seasons import seasons_of


class AnySeriesFiles(TableFiles):
    """Reads series of any frequency and length; the model needs to know nothing of them beforehand."""

    def __init__(
        self, spec: DataSpec, options: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(spec, options, asked)
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
        how = self._read_options(another=path is not None)
        if self.reading is None or self.reading[0] != (file, cutoff):
            self.reading = (file, cutoff), read_series(file, how, cutoff)
        series, freq, notes = self.reading[1]
        notes = [*covariates.unused(how), *notes]
        step = step_size or steps
        after = 0 if windows is None else steps + (windows - 1) * step
        with about_file(file):
            series = long_enough(series, SHORTEST, after, notes)
        back = [0] if windows is None else [steps + step * k for k in range(windows - 1, -1, -1)]
        theta = bool({**self.options, **self.asked}.get("auto_theta"))
        return AnyHistories(series, freq, notes, steps=steps, back=back, backtest=windows is not None, auto_theta=theta)


class AnyHistories(TableHistories):
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
        auto_theta: bool = False,
    ) -> None:
        """Each series ends `back` rows before its end; AutoTheta may stand among what is compared with."""
        super().__init__(series, freq, notes, steps=steps, backtest=backtest)
        self.auto_theta, self.seasons = auto_theta, seasons_of(freq)
        self.rows = [(s, len(one.values) - b) for s, one in enumerate(series) for b in back]
        self.pasts = [self._history(*row) for row in self.rows]
        self.batch: Batch
        self.batch, self.centre, self.scale = framed(self.pasts, self.seasons, steps)
        self.keys = [f"{series[s].id}@{series[s].stamps[at - 1]}" for s, at in self.rows]

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
        median, spread = median_and_quantiles(self._own(paths[:, :, 0], rows), quantiles, known=known)
        others = {name: self._own(value, rows)[:, 0] for name, value in (compared or {}).items()}
        if self.auto_theta and compared is not None:
            pasts = self.pasts[rows.start : rows.stop]
            others["auto-theta"] = torch.from_numpy(auto_theta(pasts, self.seasons[0], self.steps))
        places = [(s, at - len(self.pasts[row]), at) for row in rows for s, at in [self.rows[row]]]
        return [
            self._forecast(
                *place, median[b], {name: value[b] for name, value in spread.items()},
                {name: value[b] for name, value in others.items()},
            )
            for b, place in enumerate(places)
        ]  # fmt: skip

    def _own(self, values: Tensor, rows: range) -> Tensor:
        """Values [len(rows), S, steps] in the series' own units."""
        centre, scale = (v[rows.start : rows.stop, None, None] for v in (self.centre, self.scale))
        return values.double() * scale + centre

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
