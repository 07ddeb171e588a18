"""From a recipe to built parts: each stage's task wires them by name through the catalog."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from vqtool.api.data import Data, DataSpec
from vqtool.api.loss import opposed
from vqtool.api.parts import Conditioner, Decoder, Encoder, Norm
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
                try:
                    part = catalog().make(wanted.role, wanted.kind, wanted.options, *wiring)
                    if isinstance(part, Decoder) and isinstance(encoder := dict(self.parts).get("encoder"), Encoder):
                        part.check_encoder(encoder)
                except VqtoolError as error:
                    error.where = error.where or f"[{role}]"
                    raise
        self.parts[role] = part
        return part


def build(recipe: Recipe, spec: DataSpec, *, until: str | None = None) -> Model:
    """Build the parts and tasks of every stage, in order, up to and with the stage `until`."""
    names = [stage.name for stage in recipe.stages]
    builder = Builder(recipe, spec)
    tasks: dict[str, Task] = {}
    for stage in recipe.stages[: names.index(until) + 1 if until is not None else None]:
        task = catalog().make("task", stage.task.kind, stage.task.options)
        builder.task = stage.task.kind
        if spec.named("mask") and not task.masks:
            raise VqtoolError(
                f"the task `{stage.task.kind}` takes rows of one length, and these data mask shorter ones",
                hint="data without a mask: see the data's options",
                where=f"stage `{stage.name}`",
            )
        task.build(builder, spec)
        tasks[stage.name] = task
        if has_opponent(recipe, stage):
            builder("discriminator", spec.channels, spec.extent)
    return Model(recipe, spec, builder.parts, tasks)


def has_opponent(recipe: Recipe, stage: StageSpec) -> bool:
    """Whether losses of the stage read a discriminator; a model that is used and not trained has none."""
    return "discriminator" in recipe.parts and any(
        opposed(catalog().load("loss", loss.kind)) for loss in stage.losses if loss.kind is not None
    )


def without_discriminator(recipe: Recipe) -> Recipe:
    """The recipe without the part and the losses that read it.

    Raises:
        VqtoolError: a stage has no other losses.
    """
    stages = tuple(
        replace(stage, losses=tuple(loss for loss in stage.losses
                                    if loss.kind is None or not opposed(catalog().load("loss", loss.kind))))
        for stage in recipe.stages
    )  # fmt: skip
    empty = next((stage.name for stage in stages if not stage.losses), None)
    if empty is not None:
        raise VqtoolError(f"every loss of stage `{empty}` reads the discriminator: it cannot go on without")
    parts = {name: part for name, part in recipe.parts.items() if name != "discriminator"}
    return replace(recipe, stages=stages, parts=parts)


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
