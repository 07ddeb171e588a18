"""A user's file and a checkpoint's spec: histories to forecast from, windows to encode, and the way back to a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import Batch, DataSpec, Forecast, Piece
from vqtool.errors import VqtoolError
from vqtool_forecast import covariates, frequency, outliers, output, times
from vqtool_forecast.columns import ReadOptions
from vqtool_forecast.read_series import Reading, read_series
from vqtool_forecast.read_table import about_file
from vqtool_forecast.scores import backtest_scores
from vqtool_forecast.table_files import READ_OPTIONS, TableFiles, TableHistories, long_enough, median_and_quantiles
from vqtool_forecast.time_columns import listed
from vqtool_forecast.time_series import WARNING, TimeSeries
from vqtool_forecast.windows import beside_of, nonzero_std, split_rows, table_of

FAR, SIZES = 10.0, 0.01  # a history so far off, in training deviations, or so small beside one, has another scale


class SeriesFiles(TableFiles):
    """Reads a user's series as the training data were read, and writes series back in their own units."""

    endings = (".safetensors", ".csv")

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """Each series cut into histories end to end, to be encoded; what does not fill one at the start is left out."""
        if condition:
            raise VqtoolError("series are forecast, not generated from a condition", hint="vqtool forecast --steps N")
        series, freq, notes = self._read(path, another=not self._is_training_file(path))
        lookback = int(self.spec.metadata["lookback"])
        with about_file(path):
            series = long_enough(series, lookback, 0, notes, strict=joint(self.spec))
        cuts = [torch.arange(lookback + len(one.values) % lookback, len(one.values) + 1, lookback) for one in series]
        windows = SeriesHistories(self.spec, series, cuts, freq, notes)
        for one in series:
            if len(one.values) % lookback:
                rest = len(one.values) % lookback
                notes.append(f"the first {rest} rows of `{one.id}` fill no window and are left out")
        rows, channels = windows.of.shape
        places = [(row, c) for row in range(rows) for c in range(channels)]
        metadata = {
            "ids": [series[int(windows.of[place])].id for place in places],
            "ds": [times.written(windows.past(*place), windows.clock) for place in places],
            "mean": windows.mean.tolist(),
            "std": windows.std.tolist(),
        }
        yield Piece(windows.batch, metadata, [*(WARNING + warning for warning in windows.warnings), *notes])

    def save(self, path: Path, pieces: Iterator[Piece]) -> list[Path]:
        """`unique_id, ds, y` of decoded windows [B, C, L], in the series' own units: CSV or Parquet."""
        piece = Piece.joined(pieces)
        about, x = piece.metadata, piece.batch["x"]
        mean, std = (torch.tensor(about[name], dtype=torch.float64)[..., None] for name in ("mean", "std"))
        output.write_table(path, {
            "unique_id": np.repeat(about["ids"], x.shape[-1]),
            "ds": [stamp for stamps in about["ds"] for stamp in stamps],
            "y": (x.double() * std + mean).flatten().numpy(),
        })  # fmt: skip
        return [path]

    def histories(
        self,
        path: Path | None,
        *,
        steps: int,
        cutoff: str | None = None,
        windows: int | None = None,
        step_size: int | None = None,
    ) -> SeriesHistories:
        """Every series of a file up to a cutoff, or up to several of them; without a path, of the training data's."""
        backtest = windows is not None
        trained_to = self._trained_to() if backtest and self._is_training_file(path) else None
        file = Path(self.options["path"]) if path is None else path
        series, freq, notes = self._read(file, another=path is not None, cutoff=cutoff)
        step = step_size or steps
        after = 0 if windows is None else steps + (windows - 1) * step
        with about_file(file):
            lookback = int(self.spec.metadata["lookback"])
            series = long_enough(series, lookback, after, notes, strict=joint(self.spec))
        back = torch.tensor([0]) if windows is None else steps + step * torch.arange(windows - 1, -1, -1)
        cuts = [len(one.values) - back for one in series]
        return SeriesHistories(
            self.spec, series, cuts, freq, notes, steps=steps, backtest=backtest, trained_to=trained_to
        )

    def training_options(self, path: Path | None, *, cutoff: str | None, leave_out: int) -> dict[str, Any]:
        """The rows that are left out are those to test on: all others are to train and validate on."""
        train, valid, _ = self.options["shares"]
        shares = {"protocol": "shares", "shares": (train / (train + valid), valid / (train + valid), 0.0)}
        return super().training_options(path, cutoff=cutoff, leave_out=leave_out) | shares

    def _trained_to(self) -> dict[str, Any] | None:
        """The last stamp of each series that was trained on; None where the file can no longer be cut as it was."""
        how = {name: value for name, value in self.options.items() if name in READ_OPTIONS}
        try:
            found, freq, _ = read_series(Path(self.options["path"]), ReadOptions(**how))
            lengths = [len(one.values) for one in found]
            ends = split_rows(lengths, freq, self.options["protocol"], self.options["shares"])[1].tolist()
        except VqtoolError:
            return None
        return {one.id: one.stamps[n - 1] for one, n in zip(found, ends, strict=True)}

    def _read(self, path: Path, *, another: bool, cutoff: str | None = None) -> Reading:
        """A file's series, checked to be of the kind that the model knows; its frequency; notes."""
        options, about = self._read_options(another=another), self.spec.metadata
        for role, columns in (("known", options.known), ("observed", options.observed)):
            names = about.get(role) or []
            if names and len(columns) != len(names):
                raise VqtoolError(
                    f"the model reads {len(names)} columns that are {role}, {listed(names)}, and not {len(columns)}",
                    hint=f"-s data.{role}=[...] names as many columns of this file, in that order",
                )
        series, freq, notes = read_series(path, options, cutoff)
        if not about.get("known") and not about.get("observed"):
            notes += covariates.unused(options)
        trained = str(about["freq"])
        if frequency.kind(freq) != frequency.kind(trained):
            if not options.freq:
                raise VqtoolError(
                    f"the file steps by `{freq}`; the model was trained on steps of `{trained}`",
                    hint=f"--freq {freq} to forecast it anyway",
                    where=str(path),
                )
            notes.append(f"the model was trained on steps of `{trained}`; these are of `{freq}`")
        if joint(self.spec):
            series = self._joined(series, path)
        return Reading(series, freq, notes)

    def _joined(self, series: Sequence[TimeSeries], path: Path) -> list[TimeSeries]:
        """The series that the model reads together, in its order."""
        there, ids = {one.id: one for one in series}, self.spec.metadata["ids"]
        with about_file(path):
            if missing := [f"`{name}`" for name in ids if name not in there]:
                raise VqtoolError(
                    f"the model reads {len(ids)} series together; the file does not have {', '.join(missing[:5])}"
                )
            found = [there[name] for name in ids]
            check_aligned(found)
        return found


class SeriesHistories(TableHistories):
    """Histories [B, C, L] of a file's series: a row per series, or of all series where they are joint.

    `of` and `at` [B, C] are the series and the row that each history ends before. A trained series is scaled as in
    training, any other (or one that has another size or level now) by its own history: float32 keeps its digits. A row
    depends on what stands in the file before `at`, and on nothing else. With `steps` they are to be forecast from.
    """

    def __init__(
        self,
        spec: DataSpec,
        series: Sequence[TimeSeries],
        cuts: Sequence[Tensor],
        freq: str,
        notes: list[str],
        *,
        steps: int = 0,
        backtest: bool = False,
        trained_to: Mapping[str, Any] | None = None,
    ) -> None:
        """Cut each series before its rows `cuts` [W], to forecast `steps` from there; `notes` may grow.

        `trained_to` has the last stamp of each series that was trained on, where this is the training data's file.
        """
        super().__init__(series, freq, notes, steps=steps, backtest=backtest)
        self.spec, self.lookback = spec, int(spec.metadata["lookback"])
        if joint(spec):
            self.of, self.at = torch.arange(len(series)).expand(len(cuts[0]), -1), torch.stack([*cuts], 1)
        else:
            self.of = torch.cat([torch.full_like(cut, s) for s, cut in enumerate(cuts)])[:, None]
            self.at = torch.cat([*cuts])[:, None]
        self.place = torch.tensor(trained_places(spec, series))  # among the trained series; -1: none
        season, n = int(spec.metadata["season"]), len(series)
        self.table = table_of(series, [0.0] * n, [1.0] * n, freq=freq, season=season, dtype=np.float64)
        raw = outliers.without(self.table.history(self.of, self.at, self.lookback))
        self.mean, self.std = self._scales(raw)  # [B, C]
        x = ((raw - self.mean[..., None]) / self.std[..., None]).float()
        phase = self.table.phase(self.of[:, 0], self.at[:, 0])
        self.batch: Batch = {"x": x, "at": self.at[:, 0], "phase": phase, **self._beside()}
        if not joint(spec):
            self.batch["series"] = self.place[self.of[:, 0]]
        self.season = season if freq == spec.metadata["freq"] else frequency.season_of(freq)
        self.baselines = self._baselines() if backtest else {}
        self.seen = None if trained_to is None else self._trained_windows(trained_to)
        self.keys = self._keys() if steps else []
        self._warn()

    def _beside(self) -> Batch:
        """The fields `known` and `observed`, in the units of training."""
        about = self.spec.metadata
        known = about.get("known", [])
        if not known and not about.get("observed"):
            return {}
        if self.steps and not self.backtest:
            for s, at in zip(self.of.flatten().tolist(), self.at.flatten().tolist(), strict=True):
                covariates.check_ahead(self.series[s], known, at, self.steps)
        own = [one.covariates.values[: self.lookback].mean(0) for one in self.series if one.covariates is not None]
        trained = np.array(about["covariate_mean"])
        mean = np.where(self.place.numpy()[:, None] >= 0, trained[self.place.clamp_min(0)], np.stack(own))
        table = beside_of(self.series, mean, np.array(about["covariate_std"]), len(known))
        return table.fields(self.of, self.at, self.lookback, self.steps or int(about["horizon"]))

    def _keys(self) -> list[str]:
        """What each row is, as text."""
        rows = zip(self.of.tolist(), self.at.tolist(), strict=True)
        return [
            "|".join(f"{self.series[s].id}@{self.series[s].stamps[at - 1]}" for s, at in zip(of, ats, strict=True))
            for of, ats in rows
        ]

    def past(self, row: int, channel: int) -> Any:
        """The stamps of a row's history."""
        at = int(self.at[row, channel])
        return self.series[int(self.of[row, channel])].stamps[at - self.lookback : at]

    def forecasts(
        self,
        rows: range,
        paths: Tensor,
        quantiles: Sequence[float],
        *,
        known: bool = False,
        compared: Mapping[str, Tensor] | None = None,
    ) -> list[Forecast]:
        """Paths [len(rows), S, C, steps] in the model's units -> one forecast for each row and channel.

        They are sample paths; with `known`, the median and each of the quantiles.
        """
        mean, std = (v[rows.start : rows.stop, None, :, None] for v in (self.mean, self.std))
        for name, value in (compared or {}).items():
            self.baselines.setdefault(name, torch.empty(*self.of.shape, self.steps, dtype=torch.float64))
            self.baselines[name][rows.start : rows.stop] = value.double() * std[:, 0] + mean[:, 0]
        median, spread = median_and_quantiles(paths.double() * std + mean, quantiles, known=known)
        return [
            self._forecast(
                int(self.of[row, c]), int(self.at[row, c]) - self.lookback, int(self.at[row, c]), median[b, c],
                {name: value[b, c] for name, value in spread.items()},
                {name: guess[row, c] for name, guess in self.baselines.items()},
            )
            for b, row in enumerate(rows)
            for c in range(median.shape[1])
        ]  # fmt: skip

    def scores(self, forecasts: Sequence[Forecast]) -> dict[str, Any]:
        """Every metric of the model and its baselines; the denominators of MASE are from before the first cutoff.

        `windows_trained_on` counts those that begin in rows of training; None where the file is another.
        """
        before = {one.id: one.measured_values[: int(self.at[self.of == s].min())] for s, one in enumerate(self.series)}
        return {"windows_trained_on": self.seen, **backtest_scores(forecasts, before, self.season, self.notes)}

    def _baselines(self) -> dict[str, Tensor]:
        """The baselines' forecasts, by name."""
        from vqtool_forecast.baselines.plain import backtest_forecasts

        return backtest_forecasts(self.table, self.of, self.at, self.steps, self.lookback, self.season, self.notes)

    def _trained_windows(self, trained_to: Mapping[str, Any]) -> int:
        """How many windows have a future that begins no later than the last stamp that was trained on."""
        last = [trained_to.get(one.id) for one in self.series]
        end = [0 if t is None else int((one.stamps <= t).sum()) for one, t in zip(self.series, last, strict=True)]
        return int((self.at < torch.tensor(end)[self.of]).any(1).sum())

    def _warn(self) -> None:
        """Why the forecasts deserve less trust."""
        horizon = self.spec.metadata["horizon"]
        if self.steps > horizon:
            self.warnings.append(f"{self.steps} steps are more than the {horizon} that the model was trained for")
        if self.seen:
            self.warnings.append(
                f"{self.seen} of {len(self.of)} windows lie in rows that the model was trained on: no held-out scores"
            )

    def _scales(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation [B, C] of each row; a constant history keeps its own size."""
        about, place = self.spec.metadata, self.place[self.of]
        mean, std = (torch.tensor(about[name], dtype=torch.float64)[place.clamp_min(0)] for name in ("mean", "std"))
        own_mean, own_std = raw.mean(-1), raw.std(-1, correction=0)
        far = ((own_mean - mean).abs() > FAR * std) | (own_std > std / SIZES) | (own_std < std * SIZES)
        own_std = nonzero_std(own_mean, own_std)
        for what, rows in (("not among the trained series", place < 0), ("unlike in training", far & (place >= 0))):
            names = [f"`{self.series[s].id}`" for s in self.of[rows].unique().tolist()]
            if names:
                more = ", ..." if len(names) > 3 else ""
                self.notes.append(f"{what}, so scaled by their own history: {', '.join(names[:3])}{more}")
        own = far | (place < 0)
        return torch.where(own, own_mean, mean), torch.where(own, own_std, std)


def joint(spec: DataSpec) -> bool:
    """Whether all series are channels of one row."""
    return bool(spec.metadata["channels"] == "joint")


def trained_places(spec: DataSpec, series: Sequence[TimeSeries]) -> list[int]:
    """Which of the trained series each is, -1 for none: one that begins with the same values, whatever its name.

    Checkpoints from before this was kept tell series by their names.
    """
    ids, begins = list(spec.metadata["ids"]), spec.metadata.get("begins")
    by_name = {name: i for i, name in enumerate(ids)}
    if begins is None:
        return [by_name.get(one.id, -1) for one in series]
    by_values = {key: i for i, key in reversed(list(enumerate(begins)))}
    lookback, found = int(spec.metadata["lookback"]), []
    for one in series:
        key = begin_of(one.values, lookback)
        same_name = by_name.get(one.id)
        found.append(same_name if same_name is not None and begins[same_name] == key else by_values.get(key, -1))
    return found


def begin_of(values: NDArray[np.float64], lookback: int) -> str:
    """What tells a series from others: a digest of its first `lookback` values, to nine digits."""
    first = ",".join(f"{value:.9g}" for value in values[:lookback])
    return hashlib.blake2b(first.encode(), digest_size=8).hexdigest()


def check_aligned(series: Sequence[TimeSeries]) -> None:
    """Joint channels need the same stamps in every series."""
    first = series[0]
    for one in series:
        if len(one.stamps) != len(first.stamps) or not (one.stamps == first.stamps).all():
            raise VqtoolError(
                f'`channels = "joint"` needs series of the same stamps; `{one.id}` has {len(one.stamps)} from '
                f"{one.stamps[0]} and `{first.id}` {len(first.stamps)} from {first.stamps[0]}",
                hint='channels = "independent"',
            )
