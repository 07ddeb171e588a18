"""From a recipe to built parts: each stage's task wires them by name through the catalog."""

from __future__ import annotations

from typing import Any

import torch

from vqtool.api.data import Data, DataSpec
from vqtool.api.parts import Conditioner, Norm
from vqtool.api.task import Parts, Task
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.model.model import Model
from vqtool.model.seeds import seed_of
from vqtool.recipe import Recipe, StageSpec

CODING = ("norm", "conditioner", "encoder", "quantizer", "decoder")  # what codes of a model mean depends on these


class Builder:
    """`make` for one model: builds a role once, from the recipe, with its own seed."""

    def __init__(self, recipe: Recipe, spec: DataSpec) -> None:
        self.recipe = recipe
        self.spec = spec
        self.parts = Parts()
        self.task = ""

    def __call__(self, role: str, *wiring: Any, optional: bool = False) -> Any:
        """Build `[role]`, or give what an earlier stage built."""
        if role in self.parts:
            return self.parts[role]
        wanted = self.recipe.parts.get(role)
        if wanted is None:
            if not optional:
                raise VqtoolError(f"the task `{self.task}` needs a part `[{role}]`", hint=f"vqtool plugins {role}")
            if role != "norm":
                return None
            part: Any = Norm(self.spec)
        else:
            with torch.random.fork_rng(devices=[]):  # a part's start depends on the seed and its role, not on order
                torch.manual_seed(seed_of(self.recipe.seed, "part", role))
                part = catalog().make(wanted.role, wanted.kind, wanted.options, *wiring)
        self.parts[role] = part
        return part


def build(recipe: Recipe, spec: DataSpec, *, until: str | None = None, only: str | None = None) -> Model:
    """Build the parts and tasks of every stage, in order, up to and with the stage `until`.

    With `only`, the parts of that stage's task and those that codes depend on are all that is built.
    """
    builder = Builder(recipe, spec)
    tasks: dict[str, Task] = {}
    for stage in stages_for(recipe, until, only):
        task = catalog().make("task", stage.task.kind, stage.task.options)
        builder.task = stage.task.kind
        task.build(builder, spec)
        tasks[stage.name] = task
    return Model(recipe, spec, builder.parts, tasks)


def stages_for(recipe: Recipe, until: str | None, only: str | None) -> list[StageSpec]:
    """The stages up to `until`; with `only`, that one and whatever stages build its parts."""
    names = [stage.name for stage in recipe.stages]
    reached = list(recipe.stages[: names.index(until) + 1 if until is not None else None])
    if only is None:
        return reached
    uses = {stage.name: catalog().load("task", stage.task.kind).uses for stage in reached}
    maker: dict[str, str] = {}  # the first stage that uses a part is the one that builds it
    for name, roles in uses.items():
        maker |= {role: name for role in roles if role not in maker}
    chosen: set[str] = set()
    waiting = [only, *(maker[role] for role in CODING if role in maker)]
    while waiting:
        name = waiting.pop()
        if name not in chosen:
            chosen.add(name)
            waiting += [maker[role] for role in uses[name]]
    return [stage for stage in reached if stage.name in chosen]


def fit_parts(model: Model, data: Data) -> None:
    """Let norms and conditioners take their constants from the training rows."""
    rows = data.rows("train")
    for part in model.parts.values():
        if isinstance(part, Norm | Conditioner):
            part.fit(rows)


def stage_named(recipe: Recipe, name: str) -> StageSpec:
    """A stage by name."""
    for stage in recipe.stages:
        if stage.name == name:
            return stage
    names = ", ".join(f"`{stage.name}`" for stage in recipe.stages)
    raise VqtoolError(f"there is no stage called `{name}`", hint=f"the stages are {names}")
