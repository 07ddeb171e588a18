"""`vqtool backtest`: forecasts from several past cutoffs, scored against what came, beside plain rivals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vqtool.commands import outputs
from vqtool.commands.forecast import (
    Drawing,
    continuing,
    existing,
    forecast_rows,
    forecaster,
    levels,
    options_asked,
    say_about,
)
from vqtool.console import out
from vqtool.files import require_parent_dir
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
    quantiles: str,
    samples: int,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    greedy: bool,
    seed: int,
    out_file: Path | None,
    device: str,
    force: bool = False,
) -> int:
    """Forecast from every cutoff and score; returns the exit code."""
    drawing = Drawing(samples, temperature, top_k, top_p, greedy, seed, levels(quantiles))
    if out_file is not None:
        require_parent_dir(out_file)
    with runtime(device) as here, torch.no_grad():
        path, model, task = forecaster(checkpoint)
        drawing.check(task)
        kind = continuing(model, path)
        asked = options_asked(model, overrides, freq, fill)
        outputs.check(out_file, inputs=[path, data, *paths_in(asked)], force=force, recipe=model.recipe)
        rows = kind.histories(
            model.spec, existing(data, model, asked), model.recipe.data.options, asked=asked, steps=horizon,
            cutoff=cutoff, windows=n_windows, step_size=step_size,
        )  # fmt: skip
        say_about(rows)
        told = forecast_rows(model, task, rows, horizon, drawing, here)
        seen = len(rows.notes)
        scores = rows.scores(told)
    for note in rows.notes[seen:]:
        out.warn(note)
    cutoffs = sorted({one.cutoff for one in told})
    step = step_size or horizon
    plural = "s" if n_windows > 1 else ""
    out.say(f"{n_windows} window{plural} of {horizon} steps for each series, each {step} rows after the one before; "
            f"cutoffs {cutoffs[0]} to {cutoffs[-1]}")  # fmt: skip
    show(scores)
    if out_file is not None:
        kind.write_forecasts(out_file, told)
        out.say(f"wrote {out_file}")
        out.print(str(out_file))
    out.document(
        {"checkpoint": str(path), "horizon": horizon, "n_windows": n_windows, "step_size": step, "cutoffs": cutoffs}
        | scores
    )
    return 0


def show(scores: Mapping[str, Any]) -> None:
    """The model beside its rivals: every metric over all series, then one metric series by series."""
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
