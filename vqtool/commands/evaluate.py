"""`vqtool evaluate`: a checkpoint's held-out metrics beside plain baselines, over a sweep where asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vqtool.commands.newest import checkpoint_path
from vqtool.commands.train import number, show_splits
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.recipe import Recipe
from vqtool.recipe.overrides import apply_to_resolved
from vqtool.training.build import Model, build, from_checkpoint, open_data, restore
from vqtool.training.checkpoint import Checkpoint
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
) -> int:
    """Evaluate on held-out rows; returns the exit code."""
    path = checkpoint_path(checkpoint)
    with runtime(device) as here:
        model, read = from_checkpoint(path)
        if sweep is not None:
            return _sweep(path, model, read, data, overrides, sweep, split, here)
        document = _scores(path, model, read, data, overrides, split, here)
        show_splits(document["splits"])
        out.document(document)
    return 0


def _scores(path: Path, model: Model, read: Checkpoint, data: Path | None, overrides: list[str], split: str | None,
            here: Runtime) -> dict[str, Any]:  # fmt: skip
    """One evaluation; overrides may change options that change no weight."""
    if overrides:
        recipe = apply_to_resolved(model.recipe, overrides)
        model = build(recipe, model.spec, until=read.about["stage"])
        restore(model, read, f"{path}` under `-s {' '.join(overrides)}")
    model.parts.to(here.device)
    splits = evaluate(model, read.about["stage"], open_data(model.recipe, path=data), here, split=split)
    return {"checkpoint": str(path), "task": stage_task(model.recipe, read.about["stage"]), "splits": splits}


def _sweep(path: Path, model: Model, read: Checkpoint, data: Path | None, overrides: list[str], sweep: str,
           split: str | None, here: Runtime) -> int:  # fmt: skip
    """The same evaluation at several values of one option."""
    key, values = parse_sweep(sweep)
    points = []
    for value in values:
        scores = _scores(path, model, read, data, [*overrides, f"{key}={value:g}"], split, here)
        name, first = next(iter(scores["splits"].items()))
        points.append({"value": value, **first})
    rows = [[metric, *(number(p["model"].get(metric)) for p in points)] for metric in points[0]["model"]]
    out.table(f"held-out: {name}", [key, *(f"{p['value']:g}" for p in points)], rows)
    out.document({"sweep": {"key": key, "points": points}})
    return 0


def parse_sweep(text: str) -> tuple[str, list[float]]:
    """`channel.snr_db=0:18:3` -> the key and its values, the end included."""
    key, _, span = text.partition("=")
    try:
        start, stop, step = (float(part) for part in span.split(":"))
        count = round((stop - start) / step)
    except (ValueError, ZeroDivisionError):
        raise VqtoolError(f"`{text}` is no sweep", hint="--sweep channel.snr_db=0:18:3 (from, to, step)") from None
    if count < 0:
        raise VqtoolError(f"the sweep `{text}` never reaches its end", hint="--sweep KEY=FROM:TO:STEP")
    return key, [start + i * step for i in range(count + 1)]


def stage_task(recipe: Recipe, stage: str) -> str:
    """The kind of a stage's task."""
    return next(s.task.kind for s in recipe.stages if s.name == stage)
