"""`vqtool evaluate`: a checkpoint's held-out metrics beside plain baselines, over a sweep where asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vqtool.api.data import Data
from vqtool.commands import outputs
from vqtool.commands.sweep import draw, draw_axes, parse_sweep, show
from vqtool.console import out
from vqtool.diagnosis import plotting
from vqtool.errors import VqtoolError
from vqtool.model.build import stage_named
from vqtool.model.checkpoint import Checkpoint, not_finite
from vqtool.model.data import open_data
from vqtool.model.load import from_checkpoint, with_overrides
from vqtool.model.model import Model
from vqtool.model.runs import checkpoint_path
from vqtool.recipe import PartSpec, Recipe
from vqtool.recipe.recipe import apply_to_resolved
from vqtool.tables import show_splits
from vqtool.training.evaluate import evaluate
from vqtool.training.runtime import Runtime, runtime


def run(
    *,
    checkpoint: Path | None,
    data: Path | None,
    overrides: list[str],
    sweep: str | None,
    split: str | None,
    device: str,
    precision: str = "fp32",
    plot: Path | None = None,
    axes: str | None = None,
    force: bool = False,
) -> int:
    """Evaluate on held-out rows; returns the exit code."""
    if plot is not None and sweep is None:
        raise VqtoolError("`--plot` draws a sweep", hint="--sweep KEY=FROM:TO:STEP")
    if axes is not None and plot is None:
        raise VqtoolError("`--axes` says what a plot shows", hint="--plot FILE.png")
    path = checkpoint_path(checkpoint)
    with runtime(device, precision) as here:
        model, read = from_checkpoint(path, finite=False)
        outputs.check(plot, inputs=[path, data], force=force, recipe=apply_to_resolved(model.recipe, overrides))
        bad = not_finite(model.state())
        if bad:
            out.warn(f"the figures of `{path}` are meaningless: {bad}")
        if sweep is not None:
            return _sweep(path, model, read, data, overrides, sweep, split, here, plot, axes)
        document = _scores(path, model, read, data, overrides, split, here)
        show_splits(document["splits"])
        out.document(document)
    return 0


def _scores(path: Path, model: Model, read: Checkpoint, data: Path | None, overrides: list[str], split: str | None,
            here: Runtime, opened: Opened | None = None) -> dict[str, Any]:  # fmt: skip
    """One evaluation; overrides may change options that change no weight."""
    model = with_overrides(model, read, overrides)
    here.place(model)
    rows = (opened or Opened()).of(model.recipe, data)
    splits = evaluate(model, read.metadata["stage"], rows, here, split=split)
    return {
        "checkpoint": str(path),
        "task": stage_named(model.recipe, read.metadata["stage"]).task.kind,
        "splits": splits,
    }


class Opened:
    """The data set of the last evaluation: the next point of a sweep mostly reads the same."""

    def __init__(self) -> None:
        self._spec: PartSpec | None = None
        self._data: Data | None = None

    def of(self, recipe: Recipe, path: Path | None) -> Data:
        """The recipe's data; `path` replaces its `path` option."""
        if self._data is None or self._spec != recipe.data:
            self._spec, self._data = recipe.data, open_data(recipe, path=path)
        return self._data


def _sweep(path: Path, model: Model, read: Checkpoint, data: Path | None, overrides: list[str], sweep: str,
           split: str | None, here: Runtime, plot: Path | None, axes: str | None) -> int:  # fmt: skip
    """The same evaluation at several values of one option."""
    key, values = parse_sweep(sweep)
    if plot is not None:
        plotting.check(plot)
    points, opened, name = [], Opened(), ""
    for value in values:
        scores = _scores(path, model, read, data, [*overrides, f"{key}={value:g}"], split, here, opened)
        name, first = next(iter(scores["splits"].items()))
        points.append({"value": value, **first})
    show(name, key, points)
    if plot is not None:
        draw(plot, key, points) if axes is None else draw_axes(plot, axes, points)
        out.say(f"wrote {plot}")
    out.document({"sweep": {"key": key, "points": points}})
    return 0
