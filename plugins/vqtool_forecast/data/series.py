"""Time series from a CSV or Parquet file, long or wide, cut into windows of a history and its future."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_doc import Doc
from annotated_types import Gt, MinLen
from numpy.typing import NDArray

from vqtool.api import Data, DataSpec, Field, Forecast, ForecastFiles, Histories, Piece
from vqtool.errors import VqtoolError
from vqtool_forecast import answer, own_file
from vqtool_forecast.frame import SENTINELS, Reading
from vqtool_forecast.frequency import season_of
from vqtool_forecast.regular import Regular, load
from vqtool_forecast.scores import in_sample
from vqtool_forecast.windows import Cuts, SeriesRows, borders_of, ltsf_borders, share_borders, table_of

LEVELS = tuple(round(0.1 * k, 1) for k in range(1, 10))


class SeriesFiles(ForecastFiles):
    """CSV and Parquet files; their columns, gaps and sentinels are read as the training data's were.

    The training data's own file is read just as then; another file has series, steps and stamps of its own.
    """

    def __init__(
        self, spec: DataSpec, options: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(spec)
        self.options, self.asked = options or {}, asked or {}

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """A file's series cut into histories end to end; the rows at the start that fill none are left out."""
        if condition:
            raise VqtoolError("series are forecast, not generated from a condition", hint="vqtool forecast --steps N")
        own = not own_file.trained_on(self.options, path)
        yield own_file.to_encode(self.spec, path, own_file.reading(self.options, self.asked, own=own))

    def save(self, path: Path, pieces: Iterator[Piece]) -> list[Path]:
        """`unique_id, ds, y` of the windows that `open` cut, in the series' own units: CSV or Parquet."""
        whole = Piece.joined(pieces)
        own_file.write_decoded(path, whole.batch["x"], whole.metadata)
        return [path]

    def histories(
        self,
        path: Path | None,
        *,
        steps: int,
        cutoff: str | None = None,
        windows: int | None = None,
        step_size: int | None = None,
    ) -> Histories:
        """What a file's series were up to a cutoff, or up to several of them; see `own_file.SeriesHistories`."""
        how = own_file.reading(self.options, self.asked, own=path is not None)
        file = Path(self.options["path"]) if path is None else path
        of = {"steps": steps, "cutoff": cutoff, "windows": windows, "step_size": step_size}
        known = windows is not None and own_file.trained_on(self.options, path)
        trained = trained_to(self.options, how) if known else None
        return own_file.histories(self.spec, file, how, trained_to=trained, **of)

    def save_forecasts(self, path: Path, forecasts: Sequence[Forecast]) -> None:
        """`unique_id, ds, median, q0.1, ...` as CSV or Parquet; with `cutoff` and `y` where the truth is known."""
        answer.write(path, forecasts)

    def plot_forecasts(self, path: Path, forecasts: Sequence[Forecast]) -> None:
        """A picture of histories, medians and fans."""
        answer.plot(path, forecasts)


class Series(Data):
    """Every window of `lookback` values and the `horizons` after it, scaled by the mean and deviation of training rows.

    A batch holds `x` [C, lookback], `future` [C, max(horizons)], `at`, the row of the first future value in its
    series, and `phase`, the place of that row in the season. With independent channels C is 1, a row is a window of one
    series and `series` is that series' place in `spec.about["ids"]`; with joint channels C is the number of series.
    Splits follow each other in time: histories reach back over a border, futures never do. A held-out window counts as
    soon as the shortest of the horizons fits into the split; its `future` is NaN beyond the end. Values are in units
    of the training rows' standard deviation. Where gaps were filled, `measured` [C, max(horizons)] tells which values
    of the future are no filled ones.
    """

    splits = ("train", "valid", "test")
    files = SeriesFiles

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("CSV, TSV (packed or not) or Parquet")],
        layout: Annotated[
            Literal["auto", "long", "wide"], Doc("a row per value with an id, or a column per series")
        ] = "auto",
        id: Annotated[str, Doc("column of a long file that names the series")] = "unique_id",
        time: Annotated[str, Doc("column of time stamps; by default `ds`, or the one column without numbers")] = "",
        target: Annotated[str, Doc("column of a long file that holds the values")] = "y",
        series: Annotated[tuple[str, ...], Doc("the series to take; all by default")] = (),
        freq: Annotated[str, Doc("step of the calendar: h, 15min, D, B, W, M, Q, Y; inferred by default")] = "",
        time_format: Annotated[str, Doc("how stamps are written, as %d/%m/%Y; ISO needs none")] = "",
        timezone: Annotated[str, Doc("the stamps' zone, as Europe/Berlin, where days of summer time count")] = "",
        fill: Annotated[
            Literal["none", "ffill", "interp"], Doc("what to do with gaps, NaN and sentinels; none makes them errors")
        ] = "none",
        sentinels: Annotated[tuple[float, ...], Doc("values that stand for a missing one")] = SENTINELS,
        protocol: Annotated[
            Literal["shares", "ltsf"],
            Doc("splits by `shares`, or 12/4/4 months of 30 days as in long-term forecasting"),
        ] = "shares",
        shares: Annotated[tuple[float, float, float], Doc("of rows to train, validate, test")] = (0.7, 0.1, 0.2),
        scale: Annotated[
            Literal["train", "none"], Doc("standardise each series by its training rows, or leave it")
        ] = "train",
        lookback: Annotated[int, Gt(1), Doc("values in a history")] = 96,
        horizons: Annotated[
            tuple[Annotated[int, Gt(0)], ...], MinLen(1), Doc("steps ahead to report errors at; the longest is trained")
        ] = (96, 192, 336, 720),
        channels: Annotated[
            Literal["independent", "joint"], Doc("one series a row, or all series as channels of one row")
        ] = "independent",
        season: Annotated[int | None, Gt(0), Doc("steps in a season; by default as usual for the frequency")] = None,
        train_stride: Annotated[int, Gt(0), Doc("take every k-th training window")] = 1,
        valid_stride: Annotated[int, Gt(0), Doc("take every k-th validation window")] = 1,
        test_stride: Annotated[int, Gt(0), Doc("take every k-th held-out window; 1 is the protocol")] = 1,
    ) -> None:
        found, freq, notes = load(
            path, Reading(layout, id, time, target, series, freq, time_format, timezone, fill, sentinels)
        )
        if channels == "joint":
            own_file.check_aligned(found, path)
        lengths = [len(one.values) for one in found]
        cuts = cuts_of(lengths, freq, path, protocol, shares)
        end = cuts["train"][1]
        mean, std = scaler([one.values[:n][one.known[:n]] for one, n in zip(found, end, strict=True)], scale)
        season = season or season_of(freq)
        self.table = dataclasses.replace(table_of(found, mean, std, freq=freq, season=season), borders=borders_of(cuts))
        strides = {"train": train_stride, "valid": valid_stride, "test": test_stride}
        cut = {"lookback": lookback, "horizons": horizons, "joint": channels == "joint"}
        self._rows = {
            split: SeriesRows(self.table, split, **cut, stride=strides[split], whole=split != "test")
            for split in self.splits
        }
        self._check(max(lengths), path)
        ids = [one.id for one in found]
        mase, rmsse = error_scales(found, end, mean, std, season)
        self.notes = (*notes, *without_season(ids, mase))
        self.spec = describe({
            "ids": ids,
            "mean": mean.tolist(),
            "std": std.tolist(),
            "freq": freq,
            "season": season,
            "lookback": lookback,
            "horizons": list(horizons),
            "horizon": max(horizons),
            "channels": channels,
            "quantiles": list(LEVELS),
            "mase_scale": mase,
            "rmsse_scale": rmsse,
        }, gaps=self.table.last_known is not None)  # fmt: skip

    def rows(self, split: str) -> SeriesRows:
        """The windows of `train`, `valid` or `test`."""
        return self._rows[split]

    def _check(self, longest: int, path: Path) -> None:
        """Every split needs a window."""
        for split, rows in self._rows.items():
            if len(rows) == 0:
                room = max(rows.horizons) if split != "test" else min(rows.horizons)
                raise VqtoolError(
                    f"no window of {rows.lookback} + {room} rows fits into the {split} part of series of at most "
                    f"{longest} rows",
                    hint="a shorter `lookback`, shorter `horizons` or other `shares`",
                    where=str(path),
                )


def cuts_of(lengths: Sequence[int], freq: str, path: Path, protocol: str, shares: Sequence[float]) -> Cuts:
    """The splits' rows."""
    return ltsf_borders(lengths, freq, path) if protocol == "ltsf" else share_borders(lengths, shares)


def trained_to(options: Mapping[str, Any], how: Reading) -> dict[str, Any] | None:
    """The last stamp of each series that was trained on; None where the whole file can no longer be cut as it was."""
    path = Path(options["path"])
    try:
        found, freq, _ = load(path, how)
        lengths = [len(one.values) for one in found]
        end = cuts_of(lengths, freq, path, options["protocol"], options["shares"])["train"][1]
    except VqtoolError:
        return None
    return {one.id: one.stamps[n - 1] for one, n in zip(found, end, strict=True)}


def without_season(ids: Sequence[str], scales: Sequence[float | None]) -> list[str]:
    """What is said of the series whose training rows have no seasonal change to measure errors by."""
    flat = [f"`{name}`" for name, scale in zip(ids, scales, strict=True) if scale is None]
    told = "no MASE, for want of any seasonal change in the training rows: "
    return [told + ", ".join(flat[:5])] if flat else []


def describe(about: dict[str, Any], *, gaps: bool = False) -> DataSpec:
    """The spec of batches of such series; with `gaps`, some of their values were filled in."""
    joint = about["channels"] == "joint"
    channels, unit = len(about["ids"]) if joint else 1, "standard deviations"
    fields = {
        "x": Field((channels, about["lookback"]), "signal", unit),
        "future": Field((channels, about["horizon"]), unit=unit),
        "at": Field(()),
        "phase": Field(()),
    }
    if gaps:
        fields["measured"] = Field((channels, about["horizon"]))
    return DataSpec(fields if joint else fields | {"series": Field(())}, about=about)


def error_scales(
    series: Sequence[Regular], end: Sequence[int], mean: NDArray[np.float64], std: NDArray[np.float64], season: int
) -> tuple[list[float | None], list[float | None]]:
    """The denominators of MASE and RMSSE: of each series' training rows, scaled."""
    each = zip(series, end, mean, std, strict=True)
    found = [in_sample(torch.from_numpy((one.measured[:n] - m) / s), season) for one, n, m, s in each]
    return [absolute for absolute, _ in found], [squared for _, squared in found]


def scaler(train: Sequence[NDArray[np.float64]], scale: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each series' training rows; a constant series keeps its own size."""
    if scale == "none":
        return np.zeros(len(train)), np.ones(len(train))
    mean, std = np.array([v.mean() for v in train]), np.array([v.std() for v in train])
    flat = std <= 1e-12 * np.maximum(np.abs(mean), np.finfo(float).tiny)
    return mean, np.where(flat, np.where(mean == 0, 1.0, np.abs(mean)), std)
