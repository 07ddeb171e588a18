"""From files to models: finding a checkpoint, rebuilding what it holds, and restoring tensors and knobs."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vqtool.api.data import DataSpec
from vqtool.api.quantizer import Quantizer
from vqtool.api.task import Transmits
from vqtool.catalog import catalog
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.forms import damaged, is_finite
from vqtool.model import checkpoint
from vqtool.model.bounds import rebuilding
from vqtool.model.build import CODING, build
from vqtool.model.checkpoint import Checkpoint, fill, needed, require_finite
from vqtool.model.format import PARTS, under
from vqtool.model.model import Model, UnableError
from vqtool.model.runs import checkpoint_path, newest_checkpoints, pretrained
from vqtool.model.seen import Seen
from vqtool.recipe import from_resolved
from vqtool.recipe.overrides import parse
from vqtool.recipe.recipe import apply_to_resolved


def load(path: str | Path | None = None, *, precision: str = "fp32") -> Model:
    """A trained model: see `Model` for what it does; its `parts`, its `recipe` and its data's `spec` are attributes.

    Args:
        path: a checkpoint of vqtool, or the folder of a run, whose newest checkpoint is taken; or the name of a model
            that comes with vqtool, such as "forecaster"; without it, the newest run under `runs/`.
        precision: "fp32", "bf16" or "fp16", to compute in; see `Model.compute_in`.

    Raises:
        VqtoolError: there is none, it is damaged, or a plugin that it was made with is not installed.
    """
    return from_checkpoint(checkpoint_path(None if path is None else Path(path)))[0].compute_in(precision)


def capable(path: Path | None, protocol: type, verb: str) -> tuple[Model, Any]:
    """A model from a checkpoint or run, and its last task that can do what the verb needs; no other part is built.

    Without a path it is the newest run that can; where none can, a model that comes with vqtool.

    Raises:
        VqtoolError: as `load`, or the model cannot do it.
    """
    if path is not None:
        model, _ = from_checkpoint(checkpoint_path(path), able=(protocol, verb))
        return model, model.capable(protocol, verb)
    for newest in newest_checkpoints():
        try:
            model, _ = from_checkpoint(newest, able=(protocol, verb))
        except UnableError:
            continue
        except VqtoolError as error:
            out.warn(f"skipping {newest.parent}: {error.message}")
            continue
        out.say(f"taking the newest run that can {verb}: {newest}")
        return model, model.capable(protocol, verb)
    for one in pretrained():
        with contextlib.suppress(UnableError):
            model, _ = from_checkpoint(one.weights, able=(protocol, verb))
            out.say(f"no run under `runs/` can {verb}: taking `{one.name}`, which comes with vqtool")
            return model, model.capable(protocol, verb)
    raise VqtoolError(f"no run under `runs/` can {verb}", hint=f"vqtool train RECIPE, or vqtool {verb} CKPT")


def from_checkpoint(
    path: Path, *, finite: bool = True, able: tuple[type, str] | None = None
) -> tuple[Model, Checkpoint]:
    """Rebuild a model from its file alone: parts by name through the catalog, no code from the file.

    Args:
        finite: refuse weights with a NaN or an infinity.
        able: a protocol of tasks and its verb; only what the last task that can do it needs is built.

    Raises:
        VqtoolError: the file is damaged, or cannot be used here.
    """
    read = checkpoint.load(path)
    resolved, text, data, stage = needed(path, read, "resolved", "recipe", "data", "stage")
    check_plugins(path, read.metadata.get("plugins", {}), resolved)
    names = [one["name"] for one in resolved["stages"]]
    if stage not in names:
        raise damaged(path, f"its recipe has no stage `{stage}`")
    trained = {one["name"]: one["task"]["kind"] for one in resolved["stages"][: names.index(stage) + 1]}
    last = last_able(trained, able[0], resolved["parts"]) if able is not None else None
    only = needed_for(last, trained) if last is not None else None
    recipe = from_resolved(resolved, text=text, beside=path.parent, source=path, only=only)
    try:
        spec = DataSpec.from_json(data)
    except ValueError as error:
        raise damaged(path, f"its `data` {error}") from error
    with rebuilding(path, read.header):
        model = build(recipe, spec, until=None if only else stage)
    restore(model, read, str(path))
    model.path = path
    if finite:
        require_finite(model.state(), str(path))
    if able is not None and last is None:  # of a damaged file, what is wrong with it is said first
        raise UnableError(able[1], recipe, trained, path)
    return model, read


def with_overrides(model: Model, read: Checkpoint, overrides: Sequence[str]) -> Model:
    """The same model with options of its recipe changed: only such as change no weight.

    Raises:
        VqtoolError: an option is unknown, or changes the shape of what was trained.
    """
    if not overrides:
        return model
    path = str(model.path)
    changed = build(apply_to_resolved(model.recipe, overrides), model.spec, until=read.metadata["stage"])
    now, before = changed.recipe.parts, model.recipe.parts
    others = {role for role, part in now.items() if role in before and part.kind != before[role].kind}
    foreign = {name for name in read.metadata.get("knobs", {}) if name.split(".")[0] in others} - changed.knobs().keys()
    try:
        restore(changed, read, path, exclude=foreign.union(".".join(parse(text)[0]) for text in overrides))
    except VqtoolError as error:
        raise VqtoolError(
            f"`-s {' '.join(overrides)}` changes the shape of what was trained: {error.message}",
            hint="only options that change no weight can be set here; others need new training",
        ) from error
    changed.path = model.path
    return changed


def last_able(trained: Mapping[str, str], protocol: type, parts: Collection[str] = ()) -> str | None:
    """The last of the trained stages (task kinds by name) whose task can do `protocol` with these `parts`."""
    able = [
        name
        for name, kind in trained.items()
        if issubclass(catalog().load("task", kind), protocol) and (protocol is not Transmits or "channel" in parts)
    ]
    return able[-1] if able else None


def needed_for(stage: str, trained: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """The stages that build the parts of `stage` and those that codes depend on, and all their parts."""
    uses = {name: catalog().load("task", kind).uses for name, kind in trained.items()}
    maker: dict[str, str] = {}  # the first stage that uses a part is the one that builds it
    for name, roles in uses.items():
        maker |= {role: name for role in roles if role not in maker}
    stages: set[str] = set()
    waiting = [stage, *(maker[role] for role in CODING if role in maker)]
    while waiting:
        name = waiting.pop()
        if name not in stages:
            stages.add(name)
            waiting += [maker[role] for role in uses[name]]
    return stages, set().union(*(uses[name] for name in stages))


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
            plugins = f"; it was made with {', '.join(missing)}, not here" if missing else ""
            raise VqtoolError(
                f"`{path}` needs the {role} `{kind}`{plugins}",
                hint="install that plugin, or give its file with --plugin FILE.py",
                exit_code=1,
            ) from error


def restore(model: Model, read: Checkpoint, what: str, *, exclude: Collection[str] = ()) -> None:
    """Put a checkpoint's tensors and knobs into built parts; those of parts that are not built are ignored.

    `exclude` names knobs that keep what the recipe says, because somebody has just set them.
    """
    use_current_names(model, read.tensors)
    held = read.metadata.get("resolved", {}).get("parts", {})
    not_built = (model.recipe.parts.keys() | held.keys()) - model.parts.keys()
    state = under(PARTS, read.tensors)
    fill(model.parts, {name: t for name, t in state.items() if name.split(".", 1)[0] not in not_built}, what)
    model.seen = Seen.of(read.tensors, read.metadata)
    set_knobs(model, read, what, exclude=not_built.union(exclude))


def use_current_names(model: Model, tensors: dict[str, Tensor]) -> None:
    """Give the quantizers' tensors of an older checkpoint, and their averages, the names that they have today."""
    quantizers = {f"{PARTS}{role}.": part for role, part in model.parts.items() if isinstance(part, Quantizer)}
    for name in list(tensors):
        for prefix, part in quantizers.items():
            head, found, rest = name.partition(prefix)
            if found and (today := part.renamed(rest)) != rest:
                tensors[head + prefix + today] = tensors.pop(name)


def set_knobs(model: Model, read: Checkpoint, what: str, *, exclude: Collection[str] = ()) -> None:
    """Set the knobs that a checkpoint holds, except for the names and roles in `exclude`.

    Raises:
        VqtoolError: a name is not one of the part's knobs, or a value cannot be one.
    """
    for name, value in read.metadata.get("knobs", {}).items():
        role, _, knob = name.partition(".")
        if name in exclude or role in exclude:
            continue
        part = dict(model.parts).get(role)
        if part is None or knob not in getattr(part, "knobs", ()):
            raise damaged(what, f"its `knobs` set `{name}`, which is not a knob of its parts")
        if not is_finite(value) and type(value) is not type(getattr(part, knob)):
            raise damaged(what, f"its knob `{name}` should be a finite number, not {value!r:.40}")
        setattr(part, knob, value)
