"""Whether the spread of a forecast is honest: pinball loss, WQL, coverage and width of its intervals."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vqtool.api import DataSpec, Metric
from vqtool.sequence.forecasting import fewest_paths, path_quantiles
from vqtool_forecast.scores import QuantileErrors, denominators, whole_windows


class Intervals(Metric):
    """Of the quantiles that the data name (0.1 to 0.9), or of sample paths' quantiles, over the longest horizon.

    `pinball` is the mean over levels, steps and series, in training deviations; `wql` twice the pinball loss over the
    sum of |truth|, in the series' own units. `coverage.80` is the share of true values inside the central 80 % interval
    (a fraction), `coverage.80.lowest` and `.highest` that of the worst steps, `width.80` the interval's mean width;
    `coverage.80.h96` counts the windows and steps of the horizon 96.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.errors: dict[int, QuantileErrors] = {}

    def update(
        self,
        *,
        future: Tensor,
        paths: Tensor | None = None,
        quantiles: Tensor | None = None,
        series: Tensor | None = None,
        measured: Tensor | None = None,
    ) -> None:
        """`future` [B, C, H]; `quantiles` [B, Q, C, H'] or `paths` [B, S, C, H'].

        `measured` [B, C, H] is false where the future was filled in: that is not counted. With neither, or with too few
        paths for the outermost quantile, nothing is measured.
        """
        about = self.spec.metadata
        levels = about["quantiles"]
        if quantiles is None and (paths is None or paths.shape[1] < fewest_paths(levels)):
            return
        if quantiles is None:
            assert paths is not None
            quantiles = path_quantiles(paths, levels).movedim(0, 1)
        mean, std = (denominators(about, name) for name in ("mean", "std"))
        for horizon in about["horizons"]:
            if quantiles.shape[-1] < horizon:
                continue
            of, truth, guess = whole_windows(future, quantiles.movedim(1, 2), horizon, series, measured)
            errors = self.errors.setdefault(horizon, QuantileErrors(len(mean), levels))
            errors.add(of, truth, guess, mean[of], std[of])

    def compute(self) -> Mapping[str, float]:
        """The figures named above; nothing where forecasts have no spread."""
        figures: dict[str, float] = {}
        for horizon, errors in self.errors.items():
            found = errors.figures()
            figures |= {f"{name}.h{horizon}": found[name] for name in ("coverage.80", "wql") if name in found}
            if horizon == max(self.errors):
                figures |= found
        return figures
