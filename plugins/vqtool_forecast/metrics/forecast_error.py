"""Errors of point forecasts, for each horizon over all of its windows: MSE, MAE, MASE and more."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vqtool.api import DataSpec, Metric
from vqtool_forecast.scores import PointErrors, denominators, whole_windows


class ForecastError(Metric):
    """`mse.h96`, `mae.h96`, `mase.h96` and `windows.h96` for each horizon, over every window whose truth is that long.

    In units of the training rows' standard deviation, errors and counts summed over the split: the figures of the
    long-term forecasting papers. `mase`, `rmsse`, `rmse` and `smape` (0 to 1, in the series' own units) are those of
    the longest horizon; denominators are from the training rows. `windows` counts those of the series with most. Values
    that were filled in are not counted as truth; `filled.h96` is how many there were.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.errors: dict[tuple[str, int], PointErrors] = {}
        if "mean" in spec.metadata:
            self.mean, self.std = (denominators(spec.metadata, name) for name in ("mean", "std"))

    def update(
        self,
        *,
        future: Tensor,
        forecast: Tensor,
        series: Tensor | None = None,
        measured: Tensor | None = None,
        by_horizon: Mapping[int, Tensor] | None = None,
        forecasts: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`future` [B, C, H], NaN beyond the end; `forecast` [B, C, H'] of at least the shortest horizon.

        `measured` [B, C, H] is false where the future was filled in. `by_horizon` has forecasts of their own for some
        horizons, `forecasts` others to report under their names.
        """
        for prefix, guess in {"": forecast, **(forecasts or {})}.items():
            for horizon in self.spec.metadata["horizons"]:
                own = (by_horizon or {}).get(horizon, guess) if not prefix else guess
                if own.shape[-1] < horizon:
                    continue
                of, truth, own = whole_windows(future, own, horizon, series, measured)
                errors = self.errors.setdefault((prefix, horizon), PointErrors(len(self.mean)))
                errors.add(of, truth, own, self.mean[of], self.std[of])

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        figures: dict[str, float] = {}
        mase, rmsse = (denominators(self.spec.metadata, name) for name in ("mase_scale", "rmsse_scale"))
        for (prefix, horizon), errors in self.errors.items():
            found = errors.figures(mase, rmsse)
            lead = f"{prefix}." if prefix else ""
            figures |= {f"{lead}{name}.h{horizon}": found[name] for name in ("mse", "mae", "mase") if name in found}
            figures[f"{lead}windows.h{horizon}"] = float(errors.windows.max())
            if filled := float(errors.windows.sum()) * horizon - float(errors.n.sum()):
                figures[f"{lead}filled.h{horizon}"] = filled
            longest = max(h for p, h in self.errors if p == prefix)
            if horizon == longest:
                figures |= {lead + n: found[n] for n in ("mase", "rmsse", "rmse", "smape") if n in found}
        return figures
