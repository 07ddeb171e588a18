"""`vqtool backtest`: forecasts from several past cutoffs, scored against what came, beside plain baselines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vqtool.api import Forecasts
from vqtool.commands import outputs
from vqtool.console import out
from vqtool.files import require_parent_dir
from vqtool.model.forecasting import SamplingOptions
from vqtool.model.load import capable
from vqtool.recipe.spec import paths_in
from vqtool.tables import number
from vqtool.training.runtime import runtime

SHOWN = 20  # the most series in the table
BY_SERIES = "mase"


def run(
    *,
    checkpoint: Path | None,
    horizon: int,
    n_windows: int,
    step_size: int | None,
    data: Path | None,
    overrides: list[str],
    cutoff: str | None,
    freq: str | None,
    fill: str | None,
    out_file: Path | None,
    device: str,
    force: bool = False,
    **sampling: Any,
) -> int:
    """Forecast from every cutoff and score; `sampling` are `SamplingOptions`. Returns the exit code."""
    how = SamplingOptions.of(**sampling)
    if out_file is not None:
        require_parent_dir(out_file)
    with runtime(device) as here, torch.no_grad():
        model, _ = capable(checkpoint, Forecasts, "forecast")
        model.to(here.device).parts.eval()
        forecaster = model.forecaster(how, overrides, freq=freq, fill=fill)
        read = [model.path, data, *paths_in(forecaster.asked)]
        outputs.check(out_file, inputs=read, force=force, recipe=model.recipe)
        rows = forecaster.histories(data, steps=horizon, cutoff=cutoff, windows=n_windows, step_size=step_size)
        forecasts = forecaster.forecasts(rows, horizon, here.device)
        reported = len(rows.notes)
        scores = rows.scores(forecasts)
    for note in rows.notes[reported:]:
        out.warn(note)
    cutoffs = sorted({one.cutoff for one in forecasts})
    step = step_size or horizon
    plural = "s" if n_windows > 1 else ""
    out.say(f"{n_windows} window{plural} of {horizon} steps for each series, each {step} rows after the one before; "
            f"cutoffs {cutoffs[0]} to {cutoffs[-1]}")  # fmt: skip
    show(scores)
    if out_file is not None:
        forecaster.files.save_forecasts(out_file, forecasts)
        out.say(f"wrote {out_file}")
        out.print(str(out_file))
    document = {"checkpoint": str(model.path), "horizon": horizon, "n_windows": n_windows, "step_size": step}
    out.document(document | {"cutoffs": cutoffs} | scores)
    return 0


def show(scores: Mapping[str, Any]) -> None:
    """The model beside the baselines: every metric over all series, then one metric series by series."""
    overall, series = scores["overall"], scores["series"]
    names = list(overall["baselines"])
    rows = [
        [metric, number(value), *(number(overall["baselines"][name].get(metric)) for name in names)]
        for metric, value in overall["model"].items()
    ]
    out.table("all series", ["metric", "model", *names], rows)
    if len(series) > 1:
        rows = [
            [one, *(number(each.get(BY_SERIES)) for each in (found["model"], *found["baselines"].values()))]
            for one, found in list(series.items())[:SHOWN]
        ]
        more = f", the first {SHOWN} of {len(series)}" if len(series) > SHOWN else ""
        out.table(f"{BY_SERIES} by series{more}", ["series", "model", *names], rows)
