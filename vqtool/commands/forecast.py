"""`vqtool forecast` and `vqtool backtest`: what comes after the series of a file, and scores from past cutoffs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vqtool.api import Compares, Forecast, Forecasts
from vqtool.commands import outputs
from vqtool.console import out
from vqtool.errors import VqtoolError, counted
from vqtool.files import missing_file, require_parent_dir
from vqtool.forms import is_finite
from vqtool.model.conformal import calibrated
from vqtool.model.forecasting import Forecaster, SamplingOptions
from vqtool.model.format import is_of_vqtool
from vqtool.model.load import capable
from vqtool.model.model import Model
from vqtool.recipe.spec import paths_in
from vqtool.tables import number
from vqtool.training.refit import refit_windows
from vqtool.training.runtime import Runtime, runtime

SHOWN = 20  # the most series in the table
EXPLAINED = 5  # the most closed forms of a series
BY_SERIES = "mase"
BARS = "▁▂▃▄▅▆▇█"


@contextmanager
def opened(
    *files: Path | None,
    checkpoint: Path | None,
    data: Path | None,
    overrides: list[str],
    freq: str | None,
    fill: str | None,
    device: str,
    precision: str = "fp32",
    force: bool,
    **sampling: Any,
) -> Iterator[tuple[Model, Forecaster, Runtime]]:
    """A checkpoint, what forecasts with it, and where; `files` may be written, `sampling` are `SamplingOptions`."""
    how = SamplingOptions.of(**sampling)
    require_parent_dir(*files)
    if data is not None and not data.exists():
        raise missing_file(data)
    if data is None and checkpoint is not None and checkpoint.is_file() and not is_of_vqtool(checkpoint):
        raise VqtoolError(f"`{checkpoint}` is not a checkpoint", hint=f"is it the series? --data {checkpoint}")
    with runtime(device, precision) as here, torch.no_grad():
        model, _ = capable(checkpoint, Forecasts, "forecast")
        here.place(model)
        forecaster = model.forecaster(how, overrides, freq=freq, fill=fill)
        read = [model.path, data, *paths_in(forecaster.asked)]
        outputs.check(*files, inputs=read, force=force, recipe=model.recipe)
        yield model, forecaster, here


def run(
    *,
    steps: int,
    data: Path | None,
    cutoff: str | None,
    out_file: Path | None,
    plot: Path | None,
    conformal: bool = False,
    explain: bool = False,
    method: str | None = None,
    force: bool = False,
    **asked: Any,
) -> int:
    """Forecast every series of the file; `asked` is what `opened` takes. Returns the exit code."""
    if explain and method is not None:
        raise VqtoolError("--explain is of the model's forecasts, not of a method's", hint="leave one of them out")
    with opened(out_file, plot, data=data, force=force, **asked) as (model, forecaster, here):
        forecaster.method = method
        rows = forecaster.histories(data, steps=steps, cutoff=cutoff)
        forecasts = forecaster.forecasts(rows, steps, here.device)
        if conformal:
            forecasts = calibrated(forecasts, forecaster, data, cutoff, here.device)
        elif method is not None:
            out.say(f"`{method}` has no quantiles of its own: --conformal sets them by its past errors on this file")
            forecasts = [dataclasses.replace(one, quantiles={}) for one in forecasts]
        weights = forecaster.weights(rows, steps, here.device) if explain else []
        if explain and not any(weights):
            out.warn("--explain: this model's forecasts are not made of simpler ones")
        last = last_window(forecaster, data, steps, cutoff, here)
    if out_file is not None:
        forecaster.files.save_forecasts(out_file, forecasts)
    if plot is not None:
        forecaster.files.plot_forecasts(plot, forecasts)
    show(forecasts, out_file)
    show_weights(forecasts, weights)
    if last:
        show_last_window(last, method or "model")
    for file in (out_file, plot):
        if file is not None:
            out.say(f"wrote {file}")
    document: dict[str, Any] = {"checkpoint": str(model.path), "method": method or "model",
                                "series": [as_json(one) for one in forecasts]}  # fmt: skip
    for series, each in zip(document["series"], weights, strict=False):
        series["weights"] = each
    out.document(document | ({"last_window": last} if last else {}))
    return 0


def last_window(
    forecaster: Forecaster, data: Path | None, steps: int, cutoff: str | None, here: Runtime
) -> dict[str, Any]:
    """How the model, and each forecast that it knows to compare with, fared on the last `steps` rows of this file.

    Empty where the model knows none, or every series is too short.
    """
    if not isinstance(forecaster.task, Compares):
        return {}
    try:
        rows = forecaster.files.histories(data or forecaster.file, steps=steps, cutoff=cutoff, windows=1)
    except VqtoolError:
        out.say(f"too few rows to see how forecasts of {steps} steps would have fared on the last of them")
        return {}
    scores = rows.scores(forecaster.forecasts(rows, steps, here.device, compare=True))["overall"]
    each = {"model": scores["model"], **scores["baselines"]}
    metric = BY_SERIES if is_finite(each["model"].get(BY_SERIES)) else "mae"  # a history of a season has no MASE
    errors = {name: figures[metric] for name, figures in each.items()}
    return {"horizon": steps, "metric": metric, "errors": errors, "best": better_than_the_model(scores) or "model"}


def show_last_window(last: Mapping[str, Any], used: str) -> None:
    """One row: who would have been right on the end of this file; `used` made the forecast that is shown."""
    errors = sorted(last["errors"].items(), key=lambda item: item[1])
    title = f"{last['metric'].upper()} on the last {last['horizon']} steps of this file, forecast from what came before"
    out.table(title, [name for name, _ in errors], [[number(value) for _, value in errors]])
    best = last["best"]
    other = f"the {used} is not" if used == "model" else f"{used} is not"
    how = "leave --method out for its forecast" if best == "model" else f"--method {best} gives its forecast"
    out.say(f"best on this file: {best}" + ("" if best == used else f"; {other} ({how})"))


def show_weights(forecasts: Sequence[Forecast], weights: Sequence[Mapping[str, float]]) -> None:
    """The forecasts that weigh the most in each series' own."""
    if not any(weights):
        return
    rows = [[one.id, ", ".join(f"{name} {value:.0%}" for name, value in list(each.items())[:EXPLAINED])]
            for one, each in zip(forecasts[:SHOWN], weights, strict=False)]  # fmt: skip
    out.table("what the medians are made of", ["series", "closed forms and their weights"], rows)


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
        out.result_table(title, columns, rows, gap=False)


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


def backtest(
    *,
    horizon: int,
    n_windows: int,
    step_size: int | None,
    data: Path | None,
    cutoff: str | None,
    out_file: Path | None,
    anomalies: int = 0,
    refit: bool = False,
    force: bool = False,
    **asked: Any,
) -> int:
    """Forecast from every cutoff and score; `asked` is what `opened` takes. Returns the exit code.

    With `refit`, each window is forecast by a model that was trained on what comes before it.
    """
    step = step_size or horizon
    with opened(out_file, data=data, force=force, **asked) as (model, forecaster, here):
        if refit:
            rows, forecasts = refit_windows(model, forecaster, here, data, horizon=horizon, windows=n_windows,
                                            step_size=step, cutoff=cutoff)  # fmt: skip
        else:
            rows = forecaster.histories(data, steps=horizon, cutoff=cutoff, windows=n_windows, step_size=step)
            forecasts = forecaster.forecasts(rows, horizon, here.device, compare=True)
        found = most_deviating(forecasts, anomalies)
        reported = len(rows.notes)
        scores = rows.scores(forecasts)
    for note in rows.notes[reported:]:
        out.warn(note)
    cutoffs = sorted({one.cutoff for one in forecasts})
    what = f"{counted(n_windows, 'window')} of {counted(horizon, 'step')} for each series"
    several = f", each {counted(step, 'row')} after the one before; cutoffs {cutoffs[0]} to {cutoffs[-1]}"
    out.say(what + (several if len(cutoffs) > 1 else f"; cutoff {cutoffs[0]}"))
    show_scores(scores)
    if isinstance(forecaster.task, Compares) and (best := better_than_the_model(scores["overall"])):
        out.say(f"{best} is ahead of the model on this file: `vqtool forecast --method {best}` gives its forecast")
    if found:
        rows_shown = [[one["id"], one["ds"], *(f"{one[name]:.5g}" for name in ("y", "median", "deviation"))]
                      for one in found]  # fmt: skip
        out.table("values that deviate the most", ["series", "time", "value", "median", "deviation"], rows_shown)
    if out_file is not None:
        forecaster.files.save_forecasts(out_file, forecasts)
        out.say(f"wrote {out_file}")
        out.print(str(out_file))
    document = {"checkpoint": str(model.path), "horizon": horizon, "n_windows": n_windows, "step_size": step}
    out.document(document | {"refit": refit, "cutoffs": cutoffs} | scores | ({"anomalies": found} if anomalies else {}))
    return 0


def better_than_the_model(scores: Mapping[str, Any]) -> str | None:
    """The baseline with the least error, where that is less than the model's."""
    each = {"model": scores["model"], **scores["baselines"]}
    metric = BY_SERIES if is_finite(each["model"].get(BY_SERIES)) else "mae"
    best = min(each, key=lambda name: each[name][metric])
    return None if best == "model" else best


def most_deviating(forecasts: Sequence[Forecast], count: int) -> list[dict[str, Any]]:
    """The `count` known values farthest from their medians, in widths of the outermost interval; the farthest first.

    A value that was forecast from several cutoffs counts with the newest of them.

    Raises:
        VqtoolError: the forecasts have no interval.
    """
    if not count:
        return []
    if len(forecasts[0].quantiles) < 2:
        raise VqtoolError("--anomalies measures values by the interval that was forecast, and there is none",
                          hint="--quantiles 0.1,0.5,0.9, and several --samples without --greedy")  # fmt: skip
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for one in forecasts:  # of each series from the first cutoff to the last
        for ds, y, median, deviation in zip(one.ds, one.actual or (), one.median, one.deviations, strict=True):
            newest[one.id, ds] = {"id": one.id, "ds": ds, "y": y, "median": median, "deviation": deviation}
    known = [row for row in newest.values() if is_finite(row["deviation"])]
    return sorted(known, key=lambda row: -abs(row["deviation"]))[:count]


def show_scores(scores: Mapping[str, Any]) -> None:
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
