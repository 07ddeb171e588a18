"""From a recipe to built parts: each stage's task wires them by name through the catalog."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vqtool.api.data import Data, DataSpec
from vqtool.api.parts import Conditioner, Norm
from vqtool.api.quantizer import Quantizer
from vqtool.api.task import Parts, Task
from vqtool.catalog import catalog
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.forms import damaged, is_finite
from vqtool.model.bounds import rebuilding
from vqtool.model.checkpoint import Checkpoint, fill, layout, load, needed, require_finite
from vqtool.recipe import Recipe, StageSpec, from_resolved
from vqtool.recipe.portable import is_elsewhere
from vqtool.training.runtime import seed_of
from vqtool.training.usage import Seen, about_quantizer, vector_tensors

PART_PREFIX = "parts."


@dataclass
class Model:
    """Built parts and the tasks wired over them, stage by stage."""

    recipe: Recipe
    spec: DataSpec
    parts: Parts
    tasks: dict[str, Task]  # by stage name, in the recipe's order
    seen: Seen = field(default_factory=Seen)  # what the last validation saw of the quantizer

    def task(self, protocol: type) -> tuple[str, Task] | None:
        """The last stage whose task can do `protocol`, and its task."""
        for name, task in reversed(self.tasks.items()):
            if isinstance(task, protocol):
                return name, task
        return None

    def knobs(self) -> dict[str, Any]:
        """The values of every knob of every part: they are no tensors, and evaluation needs them as trained."""
        return {
            f"{role}.{knob}": getattr(part, knob)
            for role, part in self.parts.items()
            for knob in sorted(getattr(part, "knobs", ()))
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """The state of all parts under checkpoint names, and what a diagnosis reads: use and vectors of the codes."""
        state = {PART_PREFIX + name: value for name, value in self.parts.state_dict().items()}
        quantizer = quantizer_of(self)
        vectors = vector_tensors(quantizer) if quantizer is not None else {}
        return state | self.seen.tensors | vectors

    def diagnosed(self) -> dict[str, Any]:
        """What a diagnosis reads from a checkpoint's metadata, and the tensors that must be there."""
        quantizer = quantizer_of(self)
        state = {PART_PREFIX + name: value for name, value in self.parts.state_dict().items()}
        told: dict[str, Any] = {"validation": self.seen.row, "layout": layout(state)}
        return told | ({"quantizer": about_quantizer(quantizer)} if quantizer is not None else {})


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


def build(recipe: Recipe, spec: DataSpec, *, until: str | None = None) -> Model:
    """Build the parts and tasks of every stage, in order, up to and with the stage `until`."""
    builder = Builder(recipe, spec)
    tasks: dict[str, Task] = {}
    for stage in recipe.stages:
        task = catalog().make("task", stage.task.kind, stage.task.options)
        builder.task = stage.task.kind
        task.build(builder, spec)
        tasks[stage.name] = task
        if stage.name == until:
            break
    return Model(recipe, spec, builder.parts, tasks)


def with_data(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with other data, as --data asks."""
    if "path" not in recipe.data.options:
        raise VqtoolError(f"data `{recipe.data.kind}` has no option `path` that --data could set")
    options = {name: beside(path, value) for name, value in recipe.data.options.items()}
    return replace(recipe, data=replace(recipe.data, options=options | {"path": path}))


def beside(path: Path, value: Any) -> Any:
    """An option; a file whose place was not kept is looked for in the data's folder, or beside their file."""
    if not (isinstance(value, Path) and is_elsewhere(value)):
        return value
    return next((p for p in (path / value.name, path.parent / value.name) if p.exists()), value)


def open_data(recipe: Recipe, *, path: Path | None = None) -> Data:
    """The recipe's data set; `path` replaces its `path` option."""
    options = (recipe if path is None else with_data(recipe, path)).data.options
    check_found(options, given=path is not None)
    data: Data = catalog().make("data", recipe.data.kind, options)
    for note in data.notes:
        out.say(note)
    return data


def check_found(options: Mapping[str, Any], *, given: bool = False) -> None:
    """The files that a recipe names must be there: a checkpoint may have come from another machine.

    Where the data's path is `given` for this call, the data themselves say what is wrong with it.
    """
    for name, path in options.items():
        if not isinstance(path, Path) or path.exists() or (given and name == "path"):
            continue
        where = f"; only the name `{path.name}` was kept" if is_elsewhere(path) else f" at `{path}`"
        if name == "path":
            raise VqtoolError(f"the training data are not found{where}", hint="give their place with --data PATH")
        raise VqtoolError(f"the file of `data.{name}` is not found{where}", hint="put it beside the data")


def fit_parts(model: Model, data: Data) -> None:
    """Let norms and conditioners take their constants from the training rows."""
    rows = data.rows("train")
    for part in model.parts.values():
        if isinstance(part, Norm | Conditioner):
            part.fit(rows)


def from_checkpoint(path: Path, *, finite: bool = True) -> tuple[Model, Checkpoint]:
    """Rebuild a model from its file alone: parts by name through the catalog, no code from the file.

    Weights with a NaN or an infinity are refused, unless `finite` is false.
    """
    read = load(path)
    resolved, text, data, stage = needed(path, read, "resolved", "recipe", "data", "stage")
    check_plugins(path, read.about.get("plugins", {}), resolved)
    recipe = from_resolved(resolved, text=text, beside=path.parent, source=path)
    if stage not in [one.name for one in recipe.stages]:
        raise damaged(path, f"its recipe has no stage `{stage}`")
    try:
        spec = DataSpec.from_json(data)
    except ValueError as error:
        raise damaged(path, f"its `data` {error}") from error
    with rebuilding(path, read.header):
        model = build(recipe, spec, until=stage)
    restore(model, read, str(path))
    if finite:
        require_finite({PART_PREFIX + name: tensor for name, tensor in model.parts.state_dict().items()}, str(path))
    return model, read


def check_plugins(path: Path, versions: Mapping[str, str], resolved: Mapping[str, Any]) -> None:
    """Every component must be there; one that is not is named together with the plugins the checkpoint was made with.

    `resolved` is the recipe as the file holds it.
    """
    stages = resolved["stages"]
    wanted = [resolved["data"], *resolved["parts"].values(), *(stage["task"] for stage in stages)]
    named = [(one["role"], one["kind"]) for one in wanted]
    named += [("loss", one["kind"]) for stage in stages for one in stage["losses"] if one["kind"] is not None]
    named += [("schedule", one["kind"]) for stage in stages for one in stage["schedules"]]
    have = {plugin.name for plugin in catalog().plugins}
    missing = [f"`{name}` ({provider})" for name, provider in versions.items() if name not in have]
    for role, kind in named:
        try:
            catalog().find(role, kind)
        except VqtoolError as error:
            lacking = f"; it was made with {', '.join(missing)}, not here" if missing else ""
            raise VqtoolError(
                f"`{path}` needs the {role} `{kind}`{lacking}",
                hint="install that plugin, or give its file with --plugin FILE.py",
                exit_code=1,
            ) from error


def restore(model: Model, read: Checkpoint, what: str, *, but: Collection[str] = ()) -> None:
    """Put a checkpoint's tensors and knobs into built parts; those of parts that only later stages have are left.

    `but` names knobs that somebody has set anew: they keep what the recipe says.
    """
    use_current_names(model, read.tensors)
    state = {name.removeprefix(PART_PREFIX): t for name, t in read.tensors.items() if name.startswith(PART_PREFIX)}
    later = model.recipe.parts.keys() - model.parts.keys()
    fill(model.parts, {name: t for name, t in state.items() if name.split(".", 1)[0] not in later}, what)
    model.seen = Seen.of(read.tensors, read.about)
    set_knobs(model, read, what, but=later.union(but))


def use_current_names(model: Model, tensors: dict[str, torch.Tensor]) -> None:
    """Give the quantizers' tensors of an older checkpoint, and their averages, the names that they have today."""
    quantizers = {f"{PART_PREFIX}{role}.": part for role, part in model.parts.items() if isinstance(part, Quantizer)}
    for name in list(tensors):
        for prefix, part in quantizers.items():
            head, found, rest = name.partition(prefix)
            if found and (today := part.renamed(rest)) != rest:
                tensors[head + prefix + today] = tensors.pop(name)


def set_knobs(model: Model, read: Checkpoint, what: str, *, but: Collection[str] = ()) -> None:
    """Set the knobs that a checkpoint holds, but for some names and roles.

    Raises:
        VqtoolError: a name is not one of the part's knobs, or a value cannot be one.
    """
    for name, value in read.about.get("knobs", {}).items():
        role, _, knob = name.partition(".")
        if name in but or role in but:
            continue
        part = dict(model.parts).get(role)
        if part is None or knob not in getattr(part, "knobs", ()):
            raise damaged(what, f"its `knobs` set `{name}`, which is not a knob of its parts")
        if not is_finite(value) and type(value) is not type(getattr(part, knob)):
            raise damaged(what, f"its knob `{name}` should be a finite number, not {value!r:.40}")
        setattr(part, knob, value)


def quantizer_of(model: Model) -> Quantizer | None:
    """The model's quantizer, where it has one."""
    return model.parts.quantizer if "quantizer" in model.parts else None


def stage_named(recipe: Recipe, name: str) -> StageSpec:
    """A stage by name."""
    for stage in recipe.stages:
        if stage.name == name:
            return stage
    names = ", ".join(f"`{stage.name}`" for stage in recipe.stages)
    raise VqtoolError(f"there is no stage called `{name}`", hint=f"the stages are {names}")
