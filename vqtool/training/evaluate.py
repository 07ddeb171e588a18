"""Held-out metrics of a model, beside the plain baselines scored by the same metrics on the same rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch

from vqtool.api.data import Batch, Data, Rows
from vqtool.api.loss import reads
from vqtool.api.metric import Baseline, Metric
from vqtool.api.spec import UnfitError
from vqtool.api.task import Estimates
from vqtool.catalog import catalog
from vqtool.console import out
from vqtool.errors import MissingError, VqtoolError
from vqtool.model.model import Model, eval_mode
from vqtool.model.seeds import seed_of
from vqtool.recipe.component_checks import checked_measure
from vqtool.recipe.spec import table_of
from vqtool.training.batches import in_order
from vqtool.training.runtime import Runtime


class Scores:
    """The recipe's metrics over one set of rows; one instance of each metric per estimate."""

    def __init__(self, model: Model) -> None:
        self.model = model
        asked = model.recipe.evaluate.metrics
        self.wanted = None if asked is None else {table_of(given)["kind"]: given for given in asked}
        self.metrics: dict[tuple[str, str], Metric] = {}
        self.unfit: set[str] = set()

    def update(self, estimates: Estimates, batch: Batch, *, learn: bool = False) -> None:
        """Take what a task or a baseline says about a batch; with `learn`, only what metrics learn from it."""
        named = {**batch, **estimates.named}
        for kind in self.kinds():
            cls = catalog().load("metric", kind)
            if learn and not cls.learns:
                continue
            needs, takes = reads(cls.learn if learn else cls.update)
            per_estimate = "x_hat" in needs
            missing = needs - named.keys() - ({"x_hat"} if per_estimate else set())
            if missing:  # a metric of another task or field; the recipe's `evaluate.metrics` narrows the choice
                continue
            for prefix, x_hat in estimates.x_hat.items() if per_estimate else [("", None)]:
                seen = named | ({"x_hat": x_hat} if per_estimate else {})
                metric = self._of(kind, prefix)
                if metric is None:
                    break
                take = metric.learn if learn else metric.update
                take(**{n: seen[n] for n in (needs | takes) & seen.keys()})

    def kinds(self) -> Sequence[str]:
        """The metrics asked for; all there are where the recipe names none."""
        return list(self.wanted) if self.wanted is not None else catalog().names("metric")

    def learns(self) -> bool:
        """Whether a metric must see the training rows first."""
        return any(catalog().load("metric", kind).learns for kind in self.kinds())

    def _of(self, kind: str, prefix: str) -> Metric | None:
        """A metric; None where what it needs is not installed, or it does not fit the data and is not asked for."""
        if (kind, prefix) not in self.metrics and kind not in self.unfit:
            try:
                self.metrics[kind, prefix] = made(self.model, "metric", (self.wanted or {}).get(kind, kind))
            except MissingError as error:
                self.unfit.add(kind)
                if self.wanted is not None:
                    note_missing(error.message, error.hint)
            except UnfitError:
                if self.wanted is not None:
                    raise
                self.unfit.add(kind)
        return self.metrics.get((kind, prefix))

    def used(self) -> set[str]:
        """The kinds that found what they read, or that are left out because something is not installed."""
        return self.unfit | {kind for kind, _ in self.metrics}

    def copy(self) -> Scores:
        """The same metrics with what they have seen so far, to go on with other rows."""
        other = Scores(self.model)
        other.metrics = {key: copy.deepcopy(metric) for key, metric in self.metrics.items()}
        return other

    def compute(self) -> dict[str, float]:
        """All metrics by dotted name; those of an estimate but the deployed one carry its prefix, or its suffix."""
        values: dict[str, float] = {}
        for (_, prefix), metric in self.metrics.items():
            lead, tail = ("", prefix) if prefix.startswith(".") else (f"{prefix}." if prefix else "", "")
            values |= {lead + name + tail: float(value) for name, value in metric.compute().items()}
        free, forced = values.get("error.mean"), values.get("forced.error.mean")
        if free is not None and forced:
            values["exposure_gap"] = free / forced - 1  # how much worse the model fares on its own past
        return values


def made(model: Model, role: str, given: str | Mapping[str, Any]) -> Any:
    """A metric or a baseline as `[evaluate]` gives it, for the model's data."""
    spec = checked_measure(role, given, model.recipe.folder)
    return catalog().make(role, spec.kind, spec.options, model.spec)


def asked_baselines(model: Model) -> Iterator[tuple[str, Baseline]]:
    """Every baseline that the recipe asks for, as reports call it; what is not installed is left out with a note."""
    for given in model.recipe.evaluate.baselines:
        try:
            baseline: Baseline = made(model, "baseline", given)
        except MissingError as error:
            note_missing(error.message, error.hint)
            continue
        baseline.prepare(model.parts)
        options = (f"{name}={value}" for name, value in table_of(given).items() if name != "kind")
        yield " ".join([table_of(given)["kind"], *options]), baseline


def check_named(model: Model) -> None:
    """Make the metrics and baselines that a recipe names; those that do not fit its data raise `UnfitError`."""
    for given in model.recipe.evaluate.metrics or ():
        try:
            made(model, "metric", given)
        except MissingError as error:
            note_missing(error.message, error.hint)
    kinds = [table_of(given)["kind"] for given in model.recipe.evaluate.metrics or ()]
    for key, names in ("metrics", kinds), ("baselines", [name for name, _ in asked_baselines(model)]):
        if twice := {name for name in names if names.count(name) > 1}:
            raise VqtoolError(f"`[evaluate] {key}` holds `{min(twice)}` twice", hint="give it once")


@cache
def note_missing(message: str, hint: str | None) -> None:
    """Say, once for whatever needs it, that something is not installed and what it would measure is left out."""
    out.warn(f"left out: {message}" + (f" ({hint})" if hint else ""))


@torch.no_grad()
def evaluate_rows(
    model: Model, stage: str, rows: Rows, runtime: Runtime, *, learned: Scores | None = None
) -> dict[str, float]:
    """The metrics of one stage's task on `rows`; random draws are the same at every call.

    `learned` holds what metrics that learn took from the training rows.
    """
    scores = learned.copy() if learned is not None else Scores(model)
    return of_task(scores, stage, rows, runtime).compute()


@torch.no_grad()
def learned_scores(model: Model, stage: str, rows: Rows, runtime: Runtime) -> Scores:
    """The metrics that learn, after they have seen the training rows `rows`; where none does, nothing is computed."""
    scores = Scores(model)
    return of_task(scores, stage, rows, runtime, learn=True) if scores.learns() else scores


def of_task(scores: Scores, stage: str, rows: Rows, runtime: Runtime, *, learn: bool = False) -> Scores:
    """Show `scores` what a stage's task estimates of every row."""
    model, task = scores.model, scores.model.tasks[stage]
    with eval_mode(model.parts), torch.no_grad():
        return shown(scores, lambda batch: task.estimate(model.parts, batch), rows, runtime, learn)


def shown(
    scores: Scores, estimate: Callable[[Batch], Estimates], rows: Rows, runtime: Runtime, learn: bool = False
) -> Scores:
    """The scores after they have seen an estimate of every row; random draws are the same at every call."""
    torch.manual_seed(seed_of(scores.model.recipe.seed, "evaluation"))
    for batch in in_order(rows, scores.model.recipe.evaluate.batch, runtime, scores.model.spec):
        scores.update(estimate(batch), batch, learn=learn)
        if not scores.metrics:  # none of them reads what these rows hold
            break
    return scores


def evaluate_baselines(model: Model, data: Data, splits: Mapping[str, Rows]) -> dict[str, dict[str, Any]]:
    """Every baseline the recipe names, fitted on the training rows: split -> baseline -> metrics."""
    found: dict[str, dict[str, Any]] = {split: {} for split in splits}
    here, train = Runtime(torch.device("cpu")), data.rows("train")
    for name, baseline in asked_baselines(model):
        baseline.fit(train)

        def estimate(batch: Batch, baseline: Baseline = baseline) -> Estimates:
            given = dict(baseline.predict(batch))
            x_hat = given.pop("x_hat", {})
            return Estimates(x_hat if isinstance(x_hat, Mapping) else {"": x_hat}, given)

        learned = Scores(model)
        if learned.learns():
            shown(learned, estimate, train, here, learn=True)
        figures = {split: shown(learned.copy(), estimate, rows, here).compute() for split, rows in splits.items()}
        if not any(figures.values()):
            note_missing(f"the baseline `{name}`: no metric of this evaluation reads what it gives", None)
            continue
        for split, values in figures.items():
            found[split][name] = values
    return found


def held_out(data: Data, wanted: str | None, recipe_splits: tuple[str, ...] | None) -> dict[str, Rows]:
    """The splits to report: one by name, those of the recipe, or all that training never saw."""
    names = [wanted] if wanted else list(recipe_splits or [s for s in data.splits if s not in ("train", "valid")])
    for name in names:
        if name not in data.splits:
            raise VqtoolError(
                f"the data have no split called `{name}`", hint="they have " + ", ".join(f"`{s}`" for s in data.splits)
            )
    splits = {name: data.rows(name) for name in names}
    for name, rows in splits.items():
        if not len(rows):
            raise VqtoolError(f"the split `{name}` of the data holds no rows: there is nothing to measure")
    return splits


def evaluate(model: Model, stage: str, data: Data, runtime: Runtime, *, split: str | None = None) -> dict[str, Any]:
    """`{"<split>": {"model": {...}, "baselines": {"<name>": {...}}}}` on held-out rows."""
    splits = held_out(data, split, model.recipe.evaluate.splits)
    baselines = evaluate_baselines(model, data, splits)
    learned = learned_scores(model, stage, data.rows("train"), runtime)
    return {
        name: {"model": evaluate_rows(model, stage, rows, runtime, learned=learned), "baselines": baselines[name]}
        for name, rows in splits.items()
    }
