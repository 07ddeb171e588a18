"""`vqtool forecast`: what comes after the series of a file, in their own units and time stamps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vqtool.api import Continues, Forecast, Forecasts, Histories, Task, TellsQuantiles
from vqtool.catalog import catalog
from vqtool.commands import outputs
from vqtool.commands.newest import checkpoint_path
from vqtool.console import out, table_text
from vqtool.errors import VqtoolError
from vqtool.files import require_parent_dir
from vqtool.model.build import Model, check_found, from_checkpoint
from vqtool.recipe.overrides import parse
from vqtool.recipe.recipe import apply_to_resolved
from vqtool.recipe.spec import paths_in
from vqtool.runs import newest_in, runs_newest_first
from vqtool.sequence.forecasting import check_paths
from vqtool.training.runtime import Runtime, runtime, seed_of

ROWS = 32  # histories that are forecast at once; a row's result does not depend on it
SHOWN = 20  # the most series in the table
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Drawing:
    """How sample paths are drawn; what is None is left to the task."""

    samples: int
    temperature: float | None
    top_k: int | None
    top_p: float | None
    greedy: bool
    seed: int
    quantiles: Sequence[float] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if self.greedy and (self.temperature is not None or self.top_k is not None or self.top_p is not None):
            raise VqtoolError("--greedy and sampling exclude each other", hint="leave one of them out")

    def one_path(self) -> bool:
        """Whether the likeliest path alone is told, or one draw: neither has quantiles."""
        return self.greedy or self.temperature == 0 or self.samples == 1

    def check(self, task: Task) -> None:
        """The quantiles asked for must be such as these paths can give, or the task knows them."""
        if isinstance(task, TellsQuantiles):
            if not (self.temperature is None and self.top_k is None and self.top_p is None):
                out.warn("this model draws nothing: --temperature, --top-k and --top-p change none of its quantiles")
        elif not self.one_path():
            check_paths(self.samples, self.quantiles)

    def how(self, keys: Sequence[str]) -> dict[str, Any]:
        """The keyword arguments of `Forecasts.forecast` for rows of these keys."""
        seeds = [seed_of(self.seed, key) for key in keys]
        if self.greedy:
            return {"greedy": True, "seeds": seeds}
        given = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        return {"samples": self.samples, "seeds": seeds} | {k: v for k, v in given.items() if v is not None}


def run(
    *,
    checkpoint: Path | None,
    steps: int,
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
    plot: Path | None,
    device: str,
    force: bool = False,
) -> int:
    """Forecast every series of the file; returns the exit code."""
    drawing = Drawing(samples, temperature, top_k, top_p, greedy, seed, levels(quantiles))
    for file in (out_file, plot):
        if file is not None:
            require_parent_dir(file)
    with runtime(device) as here, torch.no_grad():
        path, model, task = forecaster(checkpoint)
        drawing.check(task)
        kind = continuing(model, path)
        asked = options_asked(model, overrides, freq, fill)
        outputs.check(out_file, plot, inputs=[path, data, *paths_in(asked)], force=force, recipe=model.recipe)
        rows = kind.histories(
            model.spec, existing(data, model, asked), model.recipe.data.options, asked=asked, steps=steps, cutoff=cutoff
        )
        say_about(rows)
        told = forecast_rows(model, task, rows, steps, drawing, here)
    if out_file is not None:
        kind.write_forecasts(out_file, told)
    if plot is not None:
        kind.plot_forecasts(plot, told)
    show(told, out_file)
    for file in (out_file, plot):
        if file is not None:
            out.say(f"wrote {file}")
    out.document({"checkpoint": str(path), "series": [as_json(one) for one in told]})
    return 0


def levels(text: str) -> list[float]:
    """`0.1,0.5,0.9` as ascending numbers between 0 and 1."""
    try:
        found = sorted({float(part) for part in text.split(",") if part.strip()})
    except ValueError:
        found = []
    if not found or not 0 < found[0] <= found[-1] < 1:
        raise VqtoolError(f"`{text}` are no quantiles", hint="numbers between 0 and 1, as in --quantiles 0.1,0.5,0.9")
    return found


def forecaster(given: Path | None) -> tuple[Path, Model, Task]:
    """The checkpoint asked for, which must be able to forecast; without one, the newest run that can."""
    if given is not None:
        path = checkpoint_path(given)
        model, _ = from_checkpoint(path)
        found = model.task(Forecasts)
        if found is None:
            tasks = ", ".join(f"`{stage.task.kind}`" for stage in model.recipe.stages if stage.name in model.tasks)
            raise VqtoolError(f"`{path}` cannot forecast; it was trained with {tasks}")
        return path, model, found[1]
    for folder in runs_newest_first():
        try:
            newest = newest_in(folder)
            if newest is None:
                continue
            model, _ = from_checkpoint(newest)
        except VqtoolError as error:
            out.warn(f"passing over {folder}: {error.message}")
            continue
        found = model.task(Forecasts)
        if found is not None:
            out.say(f"taking the newest run that can forecast: {newest}")
            return newest, model, found[1]
    raise VqtoolError(
        "no run under `runs/` can forecast", hint="vqtool train RECIPE, or vqtool forecast CKPT --steps N"
    )


def continuing(model: Model, path: Path) -> Continues:
    """The model's data kind, which must have series that go on."""
    kind = catalog().load("data", model.recipe.data.kind)
    if not isinstance(kind, Continues):
        raise VqtoolError(f"`{path}` was trained on data `{model.recipe.data.kind}`, which have no time to go on in")
    return kind


def options_asked(model: Model, overrides: list[str], freq: str | None, fill: str | None) -> dict[str, Any]:
    """The data's options that this call sets, checked as a recipe's are."""
    flags = [f'data.{name}="{value}"' for name, value in (("freq", freq), ("fill", fill)) if value is not None]
    overrides = [*overrides, *flags]
    keys = []
    for text in overrides:
        parts, _ = parse(text)
        if len(parts) != 2 or parts[0] != "data":
            raise VqtoolError("only options of [data] can be set here", hint="-s data.KEY=VALUE", where=f"-s {text}")
        keys.append(parts[1])
    changed = apply_to_resolved(model.recipe, overrides).data.options
    return {key: changed[key] for key in keys}


def existing(data: Path | None, model: Model, asked: dict[str, Any]) -> Path | None:
    """The file to read, None for that of the training data, which may no longer be there."""
    if data is None and "path" in asked:
        data = Path(asked["path"])
    if data is None:
        check_found(model.recipe.data.options)
    return data


def say_about(rows: Histories) -> None:
    """What the reader found out, and what makes the result less to be trusted."""
    for note in dict.fromkeys(rows.notes):
        out.say(note)
    for warning in rows.warnings:
        out.warn(warning)


def forecast_rows(
    model: Model, task: Any, rows: Histories, steps: int, drawing: Drawing, here: Runtime
) -> list[Forecast]:
    """Forecasts of all rows, a few rows at a time."""
    model.parts.to(here.device).eval()
    told: list[Forecast] = []
    n, known = len(rows.keys), isinstance(task, TellsQuantiles) and not drawing.greedy
    for begin in range(0, n, ROWS):
        some = range(begin, min(begin + ROWS, n))
        batch = here.place({name: value[some.start : some.stop] for name, value in rows.batch.items()})
        if known:
            paths = task.quantiles(model.parts, batch, steps, [0.5, *drawing.quantiles]).cpu()
        else:
            how = drawing.how(rows.keys[some.start : some.stop])
            paths = task.forecast(model.parts, batch, steps, **how).cpu()
        if not bool(torch.isfinite(paths).all()):
            raise VqtoolError(
                "the model's forecast is not finite", hint=f"vqtool diagnose {model.recipe.title}", exit_code=1
            )
        told += rows.forecasts(some, paths, drawing.quantiles, known=known)
    return told


def as_json(one: Forecast) -> dict[str, Any]:
    """A forecast as the document tells it."""
    return {
        "id": one.id,
        "cutoff": one.cutoff,
        "ds": list(one.ds),
        "median": list(one.median),
        "quantiles": {name: list(values) for name, values in one.quantiles.items()},
    }


def show(told: Sequence[Forecast], out_file: Path | None) -> None:
    """A line a series: the last value, the median at the end, the outer quantiles, and a sparkline of both."""
    outer = list(told[0].quantiles)
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
        for one in told[:SHOWN]
    ]
    more = f", the first {SHOWN} of {len(told)} series" if len(told) > SHOWN else ""
    title = f"{len(told[0].ds)} steps after {told[0].cutoff}{more}"
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
