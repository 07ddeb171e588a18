"""Time series from a CSV or Parquet file, long or wide, cut into windows of a history and its future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_doc import Doc
from annotated_types import Gt, MinLen
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import MASK, Data, DataSpec, Field, with_options_of
from vqtool.errors import VqtoolError
from vqtool_forecast.columns import ReadOptions
from vqtool_forecast.frequency import season_of
from vqtool_forecast.read_series import read_series
from vqtool_forecast.read_table import about_file
from vqtool_forecast.scores import in_sample, without_season
from vqtool_forecast.time_series import TimeSeries
from vqtool_forecast.user_file import SeriesFiles, begin_of, check_aligned
from vqtool_forecast.windows import SPLITS, SeriesRows, beside_of, nonzero_std, split_rows, table_of

LEVELS = tuple(round(0.1 * k, 1) for k in range(1, 10))

Scale = Annotated[Literal["train", "none"], Doc("standardise each series by its training rows, or leave it")]
Shortest = Annotated[
    Annotated[int, Gt(1)] | None,
    Doc("values of a history at the begin of a series, at least, with a mask; left out: whole histories only"),
]
Protocol = Annotated[
    Literal["shares", "ltsf"], Doc("splits by `shares`, or 12/4/4 months of 30 days as in long-term forecasting")
]


class Series(Data):
    """Every window of `lookback` values and the `horizons` after it, scaled by the mean and deviation of training rows.

    A batch holds `x` [C, lookback], `future` [C, max(horizons)], `at`, the row of the first future value in its
    series, and `phase`, the place of that row in the season. With independent channels C is 1, a row is a window of one
    series and `series` is that series' place in `spec.metadata["ids"]`; with joint channels C is the number of series.
    Splits follow each other in time: histories reach back over a border, futures never do. A held-out window counts as
    soon as the shortest of the horizons fits into the split; its `future` is NaN beyond the end. Values are in units
    of the training rows' standard deviation. Where gaps were filled, `measured` [C, max(horizons)] is false for
    the values of the future that were filled in. With `shortest`, histories at the begin of a series are shorter, and
    `mask` [lookback] is true for the values they have. The columns that `known` and `observed` name stand in fields of
    these names, [C, K, lookback + max(horizons)] and [C, K, lookback], in units of their own deviation.
    """

    splits: tuple[str, ...] = SPLITS
    files = SeriesFiles

    @with_options_of(ReadOptions)
    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("CSV, TSV, Excel, JSON lines, Parquet, Feather or .tsf")],
        protocol: Protocol = "shares",
        shares: Annotated[tuple[float, float, float], Doc("of rows to train, validate, test")] = (
            0.7,
            0.1,
            0.2,
        ),
        scale: Scale = "train",
        lookback: Annotated[int, Gt(1), Doc("values in a history")] = 96,
        shortest: Shortest = None,
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
        **reading: Any,
    ) -> None:
        how = ReadOptions(**reading)
        found, freq, notes = read_series(path, how)
        lengths = [len(one.values) for one in found]
        with about_file(path):
            if channels == "joint":
                check_aligned(found)
            borders = self._borders(lengths, freq, protocol, shares, season)
        end = borders[1].tolist()
        mean, std = scaler([one.values[:n][one.measured[:n]] for one, n in zip(found, end, strict=True)], scale)
        season = season or season_of(freq)
        self.table = table_of(found, mean, std, freq=freq, season=season, borders=borders)
        columns = covariate_scales(found, end, how)
        if columns:
            scales = np.array(columns["covariate_mean"]), np.array(columns["covariate_std"])
            self.table = replace(self.table, beside=beside_of(found, *scales, len(how.known)))
        if protocol == "shares" and shares[2] == 0:
            self.splits = SPLITS[:2]
        strides = {"train": train_stride, "valid": valid_stride, "test": test_stride}
        rows = partial(SeriesRows, self.table, lookback=lookback, horizons=horizons, joint=channels == "joint")
        self._rows = {s: rows(s, stride=strides[s], whole=s != "test", shortest=shortest) for s in self.splits}
        with about_file(path):
            self._check(max(lengths), fitting(max(lengths), freq, shares, season))
        ids = [one.id for one in found]
        mase, rmsse = error_scales(found, end, mean, std, season)
        self.notes = (*notes, *without_season(ids, mase, "in the training rows"))
        self.spec = describe({
            "ids": ids,
            "mean": mean,
            "std": std,
            "freq": freq,
            "season": season,
            "lookback": lookback,
            "horizons": list(horizons),
            "horizon": max(horizons),
            "channels": channels,
            "quantiles": list(LEVELS),
            "mase_scale": mase,
            "rmsse_scale": rmsse,
            "begins": [begin_of(one.values, lookback) for one in found],
            **columns,
        }, gaps=self.table.last_known is not None, mask=shortest is not None)  # fmt: skip

    def rows(self, split: str) -> SeriesRows:
        """The windows of `train`, `valid` or `test`."""
        return self._rows[split]

    @staticmethod
    def _borders(
        lengths: list[int], freq: str, protocol: str, shares: tuple[float, float, float], season: int | None
    ) -> Tensor:
        """The rows at which the splits begin; where the protocol does not serve, the error says what does."""
        try:
            return split_rows(lengths, freq, protocol, shares)
        except VqtoolError as error:
            if protocol == "ltsf":
                error.hint = f"-s data.protocol=shares {fitting(max(lengths), freq, shares, season)}"
            raise

    def _check(self, longest: int, fits: str) -> None:
        """Every split needs a window."""
        for split, rows in self._rows.items():
            if len(rows) == 0:
                room = max(rows.horizons) if split != "test" else min(rows.horizons)
                raise VqtoolError(
                    f"no window of {rows.lookback} + {room} rows fits into the {split} part of series of at most "
                    f"{longest} rows",
                    hint=f"what fits: {fits}" if fits else "a longer file",
                )


def fitting(longest: int, freq: str, shares: tuple[float, float, float], season: int | None) -> str:
    """The options that fit series of `longest` rows; "" where nothing does."""
    if min(shares[:2]) <= 0:
        return ""
    train, test = int(longest * shares[0]), int(longest * shares[2])
    room = min(longest - train - test, test or 96, 96)
    season = season or season_of(freq)
    horizon = season if 4 <= season <= room and season % 4 == 0 else room - room % 4 if room >= 4 else room
    lookback = min(96, (train - horizon) // 2)
    lookback = lookback - lookback % 8
    return f"-s data.lookback={lookback} -s 'data.horizons=[{horizon}]'" if horizon > 0 and lookback >= 8 else ""


def describe(about: dict[str, Any], *, gaps: bool = False, mask: bool = False) -> DataSpec:
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
    for name, length in (("known", about["lookback"] + about["horizon"]), ("observed", about["lookback"])):
        if about.get(name):
            fields[name] = Field((channels, len(about[name]), length), unit=unit)
    if mask:
        fields[MASK] = Field((about["lookback"],), "mask")
    return DataSpec(fields if joint else fields | {"series": Field(())}, metadata=about)


def covariate_scales(series: Sequence[TimeSeries], end: Sequence[int], how: ReadOptions) -> dict[str, Any]:
    """The columns beside the values, and what they are scaled by; empty where there are none.

    Each is centred at its mean in each series' training rows, and divided by its deviation from that over all series.
    """
    if not how.covariates:
        return {}
    parts = [one.covariates.values[:n] for one, n in zip(series, end, strict=True) if one.covariates is not None]
    mean = np.stack([part.mean(0) for part in parts])
    off = np.concatenate([part - m for part, m in zip(parts, mean, strict=True)])
    std = nonzero_std(torch.from_numpy(mean.mean(0)), torch.from_numpy(off.std(0)))
    columns = {"known": list(how.known), "observed": list(how.observed)}
    return {**columns, "covariate_mean": mean.tolist(), "covariate_std": std.tolist()}


def error_scales(
    series: Sequence[TimeSeries], end: Sequence[int], mean: Sequence[float], std: Sequence[float], season: int
) -> tuple[list[float | None], list[float | None]]:
    """The denominators of MASE and RMSSE: of each series' training rows, scaled."""
    each = zip(series, end, mean, std, strict=True)
    found = [in_sample(torch.from_numpy((one.measured_values[:n] - m) / s), season) for one, n, m, s in each]
    return [absolute for absolute, _ in found], [squared for _, squared in found]


def scaler(train: Sequence[NDArray[np.float64]], scale: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each series' training rows; a constant series keeps its own size."""
    if scale == "none":
        return [0.0] * len(train), [1.0] * len(train)
    mean, std = (torch.tensor([getattr(values, name)() for values in train]) for name in ("mean", "std"))
    return mean.tolist(), nonzero_std(mean, std).tolist()
