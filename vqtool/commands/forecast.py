"""`vqtool forecast`: what comes after the series of a file, in their own units and time stamps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vqtool.api import Forecast, Forecasts
from vqtool.commands import outputs
from vqtool.console import out, table_text
from vqtool.files import require_parent_dir
from vqtool.model.forecasting import SamplingOptions
from vqtool.model.load import capable
from vqtool.recipe.spec import paths_in
from vqtool.training.runtime import runtime

SHOWN = 20  # the most series in the table
BARS = "▁▂▃▄▅▆▇█"


def run(
    *,
    checkpoint: Path | None,
    steps: int,
    data: Path | None,
    overrides: list[str],
    cutoff: str | None,
    freq: str | None,
    fill: str | None,
    out_file: Path | None,
    plot: Path | None,
    device: str,
    force: bool = False,
    **sampling: Any,
) -> int:
    """Forecast every series of the file; `sampling` are `SamplingOptions`. Returns the exit code."""
    how = SamplingOptions.of(**sampling)
    for file in (out_file, plot):
        if file is not None:
            require_parent_dir(file)
    with runtime(device) as here, torch.no_grad():
        model, _ = capable(checkpoint, Forecasts, "forecast")
        model.to(here.device).parts.eval()
        forecaster = model.forecaster(how, overrides, freq=freq, fill=fill)
        read = [model.path, data, *paths_in(forecaster.asked)]
        outputs.check(out_file, plot, inputs=read, force=force, recipe=model.recipe)
        rows = forecaster.histories(data, steps=steps, cutoff=cutoff)
        forecasts = forecaster.forecasts(rows, steps, here.device)
    if out_file is not None:
        forecaster.files.save_forecasts(out_file, forecasts)
    if plot is not None:
        forecaster.files.plot_forecasts(plot, forecasts)
    show(forecasts, out_file)
    for file in (out_file, plot):
        if file is not None:
            out.say(f"wrote {file}")
    out.document({"checkpoint": str(model.path), "series": [as_json(one) for one in forecasts]})
    return 0


def as_json(one: Forecast) -> dict[str, Any]:
    """A forecast in the command's document."""
    return {
        "id": one.id,
        "cutoff": one.cutoff,
        "ds": list(one.ds),
        "median": list(one.median),
        "quantiles": {name: list(values) for name, values in one.quantiles.items()},
    }


def show(forecasts: Sequence[Forecast], out_file: Path | None) -> None:
    """A line a series: the last value, the median at the end, the outer quantiles, and a sparkline of both."""
    outer = list(forecasts[0].quantiles)
    names = [f"q{outer[0]}", f"q{outer[-1]}"] if outer else []
    rows = [
        [
            one.id,
            one.ds[-1],
            f"{one.past[-1]:.5g}",
            f"{one.median[-1]:.5g}",
            *(f"{one.quantiles[q][-1]:.5g}" for q in (outer[:1] + outer[-1:] if outer else [])),
            sparkline(one.past, one.median),
        ]
        for one in forecasts[:SHOWN]
    ]
    more = f", the first {SHOWN} of {len(forecasts)} series" if len(forecasts) > SHOWN else ""
    title = f"{len(forecasts[0].ds)} steps after {forecasts[0].cutoff}{more}"
    columns = ["series", "at the end", "last", "median", *names, "history | forecast"]
    if out_file is not None:
        out.table(title, columns, rows)
        out.print(str(out_file))
    else:
        out.print(table_text(title, columns, rows, out.result_stream))


def sparkline(past: Sequence[float], ahead: Sequence[float], width: int = 16) -> str:
    """The history's end and the forecast, each in at most `width` bars of eight heights."""
    shown = list(past)[-max(3 * len(ahead), width) :]
    low, high = min(*shown, *ahead), max(*shown, *ahead)
    step = (high - low) / (len(BARS) - 1) or 1.0

    def bars(values: Sequence[float]) -> str:
        count = min(width, len(values))
        cuts = [round(i * len(values) / count) for i in range(count + 1)]
        means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
        return "".join(BARS[min(len(BARS) - 1, max(0, round((mean - low) / step)))] for mean in means)

    return f"{bars(shown)}|{bars(list(ahead))}"
