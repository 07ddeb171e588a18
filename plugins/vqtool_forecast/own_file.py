"""A user's file and a checkpoint's spec: histories to forecast from, and the way back to units and stamps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqtool.api import Batch, DataSpec, Forecast, Piece
from vqtool.errors import VqtoolError
from vqtool.sequence.forecasting import path_quantiles
from vqtool_forecast import answer, frequency, rivals
from vqtool_forecast.frame import Reading
from vqtool_forecast.regular import Regular, load
from vqtool_forecast.windows import Table, table_of

FAR, SIZES = 10.0, 0.01  # a history so far off, in training deviations, or so small beside one, has another scale
READING = tuple(field.name for field in dataclasses.fields(Reading))
OF_THE_FILE = ("series", "freq", "time_format", "timezone")  # what the training data's say nothing about another file


class OwnSeries:
    """A file's series, and histories [B, C, L] out of them: a row per series, or of all series where they are joint.

    `of` and `at` [B, C] say of which series and before which row. A trained series is scaled as in training, any other
    (or one that has another size or level now) by its own history: float32 keeps its digits. A row depends on what
    stands in the file before `at`, and on nothing else.
    """

    def __init__(
        self, spec: DataSpec, series: Sequence[Regular], cuts: Sequence[Tensor], notes: list[str], freq: str
    ) -> None:
        """`cuts` holds for each series the rows [W] that histories end before; `freq` is the file's."""
        self.spec, self.series, self.notes = spec, series, notes
        if joint(spec):
            self.of, self.at = torch.arange(len(series)).expand(len(cuts[0]), -1), torch.stack([*cuts], 1)
        else:
            self.of = torch.cat([torch.full_like(cut, s) for s, cut in enumerate(cuts)])[:, None]
            self.at = torch.cat([*cuts])[:, None]
        ones = np.ones(len(series))
        season = int(spec.about["season"])
        self.table: Table = table_of(series, 0 * ones, ones, freq=freq, season=season, dtype=np.float64)
        raw = self.table.history(self.of, self.at, self.lookback)
        self.known = self._known()
        self.clock = any(frequency.has_clock(one.stamps) for one in series)
        self.mean, self.std = self._scales(raw)  # [B, C]
        x = ((raw - self.mean[..., None]) / self.std[..., None]).float()
        phase = self.table.phase(self.of[:, 0], self.at[:, 0])
        self.batch: Batch = {"x": x, "at": self.at[:, 0], "phase": phase}
        if not joint(spec):
            self.batch["series"] = self.known[self.of[:, 0]]

    @property
    def lookback(self) -> int:
        """Rows in a history."""
        return int(self.spec.about["lookback"])

    def in_own_units(self, values: Tensor, rows: slice = slice(None)) -> Tensor:
        """[B, ..., C, N] in the model's units -> the series' own, in float64."""
        between = [1] * (values.ndim - 3)
        mean, std = (v[rows].reshape(len(values), *between, -1, 1) for v in (self.mean, self.std))
        return values.double() * std + mean

    def past(self, row: int, channel: int) -> Any:
        """The stamps of a row's history."""
        at = int(self.at[row, channel])
        return self.series[int(self.of[row, channel])].stamps[at - self.lookback : at]

    def written(self, stamps: Any) -> list[str]:
        """Stamps as text, in one form for the whole file."""
        return frequency.written(stamps, self.clock)

    def _known(self) -> Tensor:
        """Each series' place among the trained ones; -1 where it is none of them."""
        places = {name: i for i, name in enumerate(self.spec.about["ids"])}
        return torch.tensor([places.get(one.id, -1) for one in self.series])

    def _scales(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation [B, C] of each row; a constant history keeps its own size."""
        about, place = self.spec.about, self.known[self.of]
        mean, std = (torch.tensor(about[name], dtype=torch.float64)[place.clamp_min(0)] for name in ("mean", "std"))
        own_mean, own_std = raw.mean(-1), raw.std(-1, correction=0)
        far = ((own_mean - mean).abs() > FAR * std) | (own_std > std / SIZES) | (own_std < std * SIZES)
        flat = own_std <= 1e-12 * own_mean.abs().clamp_min(torch.finfo(torch.float64).tiny)
        own_std = torch.where(flat, torch.where(own_mean == 0, 1.0, own_mean.abs()), own_std)
        for what, rows in (("not among the trained series", place < 0), ("unlike in training", far & (place >= 0))):
            names = [f"`{self.series[s].id}`" for s in self.of[rows].unique().tolist()]
            if names:
                more = ", ..." if len(names) > 3 else ""
                self.notes.append(f"{what}, so scaled by their own history: {', '.join(names[:3])}{more}")
        own = far | (place < 0)
        return torch.where(own, own_mean, mean), torch.where(own, own_std, std)


class SeriesHistories(OwnSeries):
    """What `forecast` and `backtest` begin from: `vqtool.api.Histories`."""

    def __init__(
        self,
        spec: DataSpec,
        series: Sequence[Regular],
        cuts: Sequence[Tensor],
        notes: list[str],
        *,
        freq: str,
        steps: int,
        backtest: bool,
        trained_to: Mapping[str, Any] | None = None,
    ) -> None:
        """`trained_to` holds the last stamp that was trained on, of each series, where the file is known to be that."""
        super().__init__(spec, series, cuts, notes, freq)
        self.freq, self.steps, self.backtest = freq, steps, backtest
        about = spec.about
        self.warnings: list[str] = []
        if steps > about["horizon"]:
            self.warnings.append(f"{steps} steps are more than the {about['horizon']} that the model was trained for")
        self.season = int(about["season"]) if freq == about["freq"] else frequency.season_of(freq)
        self.keys = [
            "|".join(f"{series[s].id}@{series[s].stamps[at - 1]}" for s, at in zip(of, ats, strict=True))
            for of, ats in zip(self.of.tolist(), self.at.tolist(), strict=True)
        ]
        self.rivals = (
            rivals.forecasts(self.table, self.of, self.at, steps, self.lookback, self.season, notes) if backtest else {}
        )
        self.seen = None if trained_to is None else self._seen(trained_to)
        if self.seen:
            self.warnings.append(
                f"{self.seen} of {len(self.of)} windows lie in rows that the model was trained on: no held-out scores"
            )

    def forecasts(
        self, rows: range, paths: Tensor, quantiles: Sequence[float], *, known: bool = False
    ) -> list[Forecast]:
        """Paths [len(rows), S, C, steps] in the model's units -> one forecast for each row and channel.

        They are sample paths; with `known`, the median and each of the quantiles.
        """
        own = self.in_own_units(paths, slice(rows.start, rows.stop))
        drawn = own.shape[1] > 1 and not known
        levels = list(quantiles) if drawn or known else []  # one path has no spread to tell of
        median = own.quantile(0.5, dim=1) if drawn else own[:, 0]  # [B, C, steps]
        spread = path_quantiles(own, levels) if drawn else own[:, 1:].movedim(1, 0)  # [Q, B, C, N]
        return [
            self._forecast(
                row, c, median[b, c].numpy(), {f"{q:g}": spread[i, b, c].numpy() for i, q in enumerate(levels)}
            )
            for b, row in enumerate(rows)
            for c in range(own.shape[2])
        ]

    def scores(self, forecasts: Sequence[Forecast]) -> dict[str, Any]:
        """Every metric of the model and its rivals; the denominators of MASE are from before the first cutoff.

        `windows_trained_on` counts those that begin in rows of training; None where the file is another.
        """
        before = {one.id: one.measured[: int(self.at[self.of == s].min())] for s, one in enumerate(self.series)}
        return {"windows_trained_on": self.seen, **answer.scores(forecasts, before, self.season, self.notes)}

    def _seen(self, trained_to: Mapping[str, Any]) -> int:
        """How many windows have a future that begins no later than the last stamp that was trained on."""
        last = [trained_to.get(one.id) for one in self.series]
        end = [0 if t is None else int((one.stamps <= t).sum()) for one, t in zip(self.series, last, strict=True)]
        return int((self.at < torch.tensor(end)[self.of]).any(1).sum())

    def _forecast(self, row: int, c: int, median: Any, quantiles: Mapping[str, Any]) -> Forecast:
        one, at = self.series[int(self.of[row, c])], int(self.at[row, c])
        past, come = self.past(row, c), slice(at, at + self.steps)
        ds = one.stamps[come] if self.backtest else frequency.following(past[-1], self.freq, self.steps)
        return Forecast(
            one.id,
            self.written(past[-1:])[0],
            self.written(ds),
            median,
            quantiles,
            self.written(past),
            one.values[at - self.lookback : at],
            one.measured[come] if self.backtest else None,
            {name: guess[row, c].numpy() for name, guess in self.rivals.items()},
        )


def joint(spec: DataSpec) -> bool:
    """Whether all series are channels of one row."""
    return bool(spec.about["channels"] == "joint")


def trained_on(options: Mapping[str, Any], path: Path | None) -> bool:
    """Whether this is the file of the training data, whose `options` these are; no path stands for it."""
    trained = Path(options["path"])
    return path is None or (path.exists() and trained.exists() and path.samefile(trained))


def reading(options: Mapping[str, Any], asked: Mapping[str, Any], *, own: bool) -> Reading:
    """How to read a file: as the training data were, but a file of the user's own has series and stamps of its own."""
    kept = {name: options[name] for name in READING if name in options and not (own and name in OF_THE_FILE)}
    return Reading(**(kept | {name: value for name, value in asked.items() if name in READING}))


def histories(
    spec: DataSpec,
    path: Path,
    how: Reading,
    *,
    steps: int,
    cutoff: str | None = None,
    windows: int | None = None,
    step_size: int | None = None,
    trained_to: Mapping[str, Any] | None = None,
) -> SeriesHistories:
    """Read `path`, check that the model can go on from it, and cut the histories."""
    series, freq, notes = opened(spec, path, how, cutoff)
    step = step_size or steps
    after = 0 if windows is None else steps + (windows - 1) * step
    check_lengths(series, int(spec.about["lookback"]), after, path)
    back = torch.tensor([0]) if windows is None else steps + step * torch.arange(windows - 1, -1, -1)
    cuts = [len(one.values) - back for one in series]
    told = {"freq": freq, "steps": steps, "backtest": windows is not None, "trained_to": trained_to}
    return SeriesHistories(spec, series, cuts, notes, **told)


def opened(spec: DataSpec, path: Path, how: Reading, cutoff: str | None = None) -> tuple[list[Regular], str, list[str]]:
    """A file's series, checked to be of the kind that the model knows; its frequency; notes."""
    series, freq, notes = load(path, how, cutoff)
    trained = str(spec.about["freq"])
    if frequency.kind(freq) != frequency.kind(trained):
        if not how.freq:
            raise VqtoolError(
                f"the file steps by `{freq}`; the model was trained on steps of `{trained}`",
                hint=f"--freq {freq} to go on all the same",
                where=str(path),
            )
        notes.append(f"the model was trained on steps of `{trained}`; these are of `{freq}`")
    if joint(spec):
        there = {one.id: one for one in series}
        lacking = [f"`{name}`" for name in spec.about["ids"] if name not in there]
        if lacking:
            raise VqtoolError(
                f"the model reads {len(spec.about['ids'])} series together; the file lacks {', '.join(lacking[:5])}",
                where=str(path),
            )
        series = [there[name] for name in spec.about["ids"]]
        check_aligned(series, path)
    return series, freq, notes


def check_lengths(series: Sequence[Regular], lookback: int, after: int, path: Path) -> None:
    """Every series needs a history before its first forecast."""
    for one in series:
        n = len(one.values)
        if n < lookback + after:
            ends = f", up to {one.stamps[-1]}"
            more = f", and the windows another {after}" if after else ""
            raise VqtoolError(
                f"series `{one.id}` has {n} rows{ends}; the model reads {lookback}{more}",
                hint="fewer --n-windows or a shorter --horizon" if after else "a later --cutoff, or a longer file",
                where=str(path),
            )


def check_aligned(series: Sequence[Regular], path: Path) -> None:
    """Joint channels need the same stamps in every series."""
    first = series[0]
    for one in series:
        if len(one.stamps) != len(first.stamps) or not (one.stamps == first.stamps).all():
            raise VqtoolError(
                f'`channels = "joint"` needs series of the same stamps; `{one.id}` has {len(one.stamps)} from '
                f"{one.stamps[0]} and `{first.id}` {len(first.stamps)} from {first.stamps[0]}",
                hint='channels = "independent"',
                where=str(path),
            )


def to_encode(spec: DataSpec, path: Path, how: Reading) -> Piece:
    """All of a file's series as windows that follow each other without overlap, ending at the last row."""
    series, freq, notes = opened(spec, path, how)
    lookback = int(spec.about["lookback"])
    check_lengths(series, lookback, 0, path)
    cuts = [torch.arange(lookback + len(one.values) % lookback, len(one.values) + 1, lookback) for one in series]
    own = OwnSeries(spec, series, cuts, notes, freq)
    for one in series:
        if len(one.values) % lookback:
            notes.append(f"the first {len(one.values) % lookback} rows of `{one.id}` fill no window and are left out")
    rows, channels = own.of.shape
    places = [(row, c) for row in range(rows) for c in range(channels)]
    metadata = {
        "ids": [series[int(own.of[place])].id for place in places],
        "ds": [own.written(own.past(*place)) for place in places],
        "mean": own.mean.tolist(),
        "std": own.std.tolist(),
    }
    return Piece(own.batch, metadata, notes)


def write_decoded(path: Path, signal: Tensor, about: Mapping[str, Any]) -> None:
    """`unique_id, ds, y` of decoded windows [B, C, L], in the series' own units."""
    mean, std = (torch.tensor(about[name], dtype=torch.float64)[..., None] for name in ("mean", "std"))
    own = signal.double() * std + mean
    answer.write_table(path, {
        "unique_id": np.repeat(about["ids"], own.shape[-1]),
        "ds": [stamp for stamps in about["ds"] for stamp in stamps],
        "y": own.flatten().numpy(),
    })  # fmt: skip
