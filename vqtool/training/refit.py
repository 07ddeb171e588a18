"""A backtest whose model is trained again before each cutoff, on the rows that were known then."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from vqtool.api import Forecast, Forecasts, Histories
from vqtool.catalog import catalog
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.model.forecasting import Forecaster
from vqtool.model.format import read_header, stage_file
from vqtool.model.load import capable, last_able, needed_for
from vqtool.model.model import Model
from vqtool.model.runs import pretrained
from vqtool.recipe import Recipe, from_resolved, load
from vqtool.training.rundir import RunDir
from vqtool.training.runtime import Runtime, Signals
from vqtool.training.session import Session


def refit_windows(
    model: Model,
    forecaster: Forecaster,
    here: Runtime,
    data: Path | None,
    *,
    horizon: int,
    windows: int,
    step_size: int,
    cutoff: str | None,
) -> tuple[Histories, list[Forecast]]:
    """The forecasts of a backtest, each window by a model trained on what comes before it; window by window.

    The histories are those of the first window: its denominators hold for all of them. Series that are too short for
    it are left out.

    Raises:
        VqtoolError: the data cannot be cut before a window, there is too little before the first one, or the model
            was trained on from a checkpoint that is not known any more.
    """
    recipe, start = origin(model)
    data = data or forecaster.file
    first: Histories | None = None
    forecasts: list[Forecast] = []
    order: dict[str, int] = {}
    with Signals(at_once=True):
        for number in range(1, windows + 1):
            after = step_size * (windows - number)
            options = forecaster.files.training_options(data, cutoff=cutoff, leave_out=after + horizon)
            out.say(f"window {number} of {windows}: training without the last {after + horizon} rows")
            left = [f"data.leave_out={options['leave_out'] - horizon}"]
            own = replace(recipe.data, options={**recipe.data.options, **forecaster.asked, **options})
            with _named(number, windows), trained(replace(recipe, data=own), start, here) as again:
                here.place(again)
                with out.silence() if first else contextlib.nullcontext():  # the first one speaks for all
                    each = again.forecaster(forecaster.how, [*forecaster.overrides, *left])
                    rows = each.histories(data, steps=horizon, cutoff=cutoff, windows=1)
                forecasts += each.forecasts(rows, horizon, here.device, compare=True)
                first = first or rows
                order = order or {one.id: place for place, one in enumerate(forecasts)}
    assert first is not None  # there is a window
    return first, sorted((one for one in forecasts if one.id in order), key=lambda one: order[one.id])


@contextlib.contextmanager
def _named(number: int, windows: int) -> Iterator[None]:
    """Inside, an error says which window it was in."""
    try:
        yield
    except VqtoolError as error:
        error.message = f"window {number} of {windows}: {error.message}"
        raise


def origin(model: Model) -> tuple[Recipe, Path | None]:
    """The recipe that trains a model anew, with the stages that its forecasts depend on; the weights it starts from.

    Raises:
        VqtoolError: its training began with a checkpoint that vqtool does not come with.
    """
    own = {one.name: one for one in pretrained()}
    for one in own.values():
        if model.path == one.weights:
            return _stages(load(one.recipe)), one.weights
    assert model.path is not None  # it was loaded
    metadata = read_header(model.path).metadata
    start = metadata.get("started_from")
    if start is not None and start not in own:
        raise VqtoolError(
            f"--refit trains a model as it was trained, and `{model.path}` began with the weights of `{start}`, which "
            "may have seen the rows that are to be forecast",
            hint="train it without --from, or from a model that comes with vqtool",
        )
    recipe = from_resolved(metadata["resolved"], text=metadata["recipe"], beside=model.path.parent, source=model.path)
    return _stages(recipe, until=metadata["stage"]), own[start].weights if start is not None else None


def _stages(recipe: Recipe, until: str | None = None) -> Recipe:
    """The recipe with those stages, up to `until`, that train what its last forecasting task uses; nothing is held out.

    What else is in it costs time and changes no forecast.
    """
    names = [stage.name for stage in recipe.stages]
    stages = recipe.stages[: names.index(until) + 1 if until is not None else None]
    kinds = {stage.name: stage.task.kind for stage in stages}
    last = last_able(kinds, Forecasts)
    assert last is not None  # the model forecasts
    _, roles = needed_for(last, kinds)
    needed = [stage for stage in stages if roles & {*catalog().load("task", stage.task.kind).trains}]
    evaluated = recipe.evaluate.model_copy(update={"splits": None})
    return replace(recipe, stages=tuple(needed), evaluate=evaluated)


@contextlib.contextmanager
def trained(recipe: Recipe, start: Path | None, here: Runtime) -> Iterator[Model]:
    """The model of a recipe, trained in a folder that is gone afterwards.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    with tempfile.TemporaryDirectory(prefix="vqtool-refit-") as folder:
        with out.silence(), torch.enable_grad(), RunDir.create(
            recipe, Path(folder) / "run", argv=["backtest", "--refit"], device=str(here.device)
        ) as run:  # fmt: skip
            session = Session(recipe, run, here)
            session.start(start)
            if session.train():
                raise KeyboardInterrupt
        model, _ = capable(run.path(stage_file(recipe.stages[-1].name)), Forecasts, "forecast")
        model.recipe = replace(model.recipe, data=recipe.data)  # a checkpoint keeps no path to files far from it
        yield model
