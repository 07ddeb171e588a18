"""A stage's resumable state: live weights, optimizer, scaler and averages, in safetensors; no pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqtool.forms import damaged
from vqtool.model import checkpoint
from vqtool.model.format import AVERAGE, BALANCE, LOSSES, OPTIMIZER, PENDING, PROGRESS, RESUME, under
from vqtool.training.loop import Progress, StageLoop
from vqtool.training.optimise import MAIN, Optimiser
from vqtool.training.rundir import RunDir

SLOTS = {"step", "exp_avg", "exp_avg_sq"}  # what AdamW keeps of each parameter


def save_state(run: RunDir, loop: StageLoop, stage: str, more: Mapping[str, Any]) -> None:
    """Write everything that the next step depends on, and what `more` there is to know of the run."""
    tensors = loop.model.tensors() | loop.module.learned_by_losses()
    tensors |= {AVERAGE + name: value for name, value in loop.average.values.items()}
    tensors |= loop.module.balanced()
    groups: list[dict[str, Any]] = []
    for name, one in loop.optimisers.items():
        adam = one.adam.state_dict()
        groups += [{**group, "optimizer": name} for group in adam["param_groups"]]
        for index, entry in adam["state"].items():
            tensors |= {f"{OPTIMIZER}{name}.{index}.{slot}": torch.as_tensor(value) for slot, value in entry.items()}
    tensors |= {PENDING + name: torch.from_numpy(counts) for name, counts in loop.usage.counts(loop.quantizer).items()}
    run.save(RESUME, tensors, {
        **more,
        "stage": stage,
        "progress": asdict(loop.progress),
        "average_steps": loop.average.steps,
        "param_groups": groups,
        "scaler": loop.optimisers.scaler.state_dict(),
        "weights": loop.module.weights,
        "moved": loop.moved,
        "met": loop.met,
        "headline": loop.headline.best,
        **loop.model.metadata(),
    })  # fmt: skip


def load_state(loop: StageLoop, state: checkpoint.Checkpoint) -> None:
    """Put a loop where `save_state` found it; the parts themselves are restored already."""
    if state.metadata.get("fresh"):
        return
    what, tensors = RESUME, state.tensors
    groups, steps, scaler, progress = checkpoint.needed(
        what, state, "param_groups", "average_steps", "scaler", "progress"
    )
    if not 0 <= progress["step"] <= loop.steps:
        raise damaged(what, f"its `progress.step` is {progress['step']}, and the stage has {loop.steps} steps")
    checkpoint.fill(loop.module.losses, under(LOSSES, tensors), what)
    if loop.module.balance is not None:
        checkpoint.fill(loop.module.balance, under(BALANCE, tensors), what)
    _load_optimizers(loop, under(OPTIMIZER, tensors), groups, what)
    average = under(AVERAGE, tensors)
    checkpoint.check_fits(loop.average.values, average, what)
    for name, value in loop.average.values.items():
        value.copy_(average[name])
    loop.average.steps = steps
    if scaler:
        if scaler.keys() != loop.optimisers.scaler.state_dict().keys() or not all(map(math.isfinite, scaler.values())):
            raise damaged(what, "its `scaler` is not one of this run")
        loop.optimisers.scaler.load_state_dict(scaler)
    loop.usage.before = _pending(loop, under(PENDING, tensors), what)
    loop.moved = state.metadata.get("moved", {})
    loop.met = state.metadata.get("met", False)
    bests = state.metadata.get("headline", {})
    loop.headline.best = {name: (pair[0], int(pair[1])) for name, pair in bests.items() if len(pair) == 2}
    loop.progress = Progress(**{name: progress[name] for name in PROGRESS})


def _pending(loop: StageLoop, tensors: Mapping[str, Tensor], what: str) -> dict[str, np.ndarray]:
    """Counts of codes by codebook."""
    quantizer = loop.quantizer
    sizes = dict(zip(quantizer.codebook_names, quantizer.codebook_sizes, strict=True)) if quantizer is not None else {}
    for name, counts in tensors.items():
        if counts.dtype != torch.int64 or counts.shape != (sizes.get(name),) or bool((counts < 0).any()):
            raise damaged(what, f"its tensor `{PENDING}{name}` does not fit the quantizer")
    return {name: counts.numpy() for name, counts in tensors.items()}


def _load_optimizers(loop: StageLoop, tensors: Mapping[str, Tensor], groups: list[Any], what: str) -> None:
    """Put back what each optimizer averaged; their options are those of the recipe."""
    held: dict[str, dict[str, Tensor]] = {name: {} for name in loop.optimisers}
    for key, value in tensors.items():
        name, _, rest = (f"{MAIN}.{key}" if key.split(".")[0].isdecimal() else key).partition(".")
        if name not in held:
            raise damaged(what, f"its tensor `{OPTIMIZER}{key}` is of an optimizer that the recipe does not have")
        held[name][rest] = value
    there = {group.get("optimizer", MAIN) for group in groups}
    if there != held.keys():
        raise damaged(what, "its `param_groups` do not fit the recipe")
    for name, one in loop.optimisers.items():
        mine = [group["params"] for group in groups if group.get("optimizer", MAIN) == name]
        _load_optimizer(one, held[name], mine, what, f"{OPTIMIZER}{name}.")


def _load_optimizer(one: Optimiser, tensors: Mapping[str, Tensor], groups: list[Any], what: str, at: str) -> None:
    """Put back one AdamW's averages; `groups` are the places of its parameters."""
    own = one.adam.state_dict()["param_groups"]
    if groups != [group["params"] for group in own]:
        raise damaged(what, "its `param_groups` do not fit the recipe")
    parameters = [p for group in one.adam.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, slot = name.partition(".")
        known = index.isdecimal() and int(index) < len(parameters) and slot in SLOTS
        if not known or value.shape != (() if slot == "step" else parameters[int(index)].shape):
            raise damaged(what, f"its tensor `{at}{name}` does not fit the recipe")
        entries.setdefault(int(index), {})[slot] = value
    for number, entry in entries.items():
        if entry.keys() != SLOTS:
            raise damaged(what, f"its `{at}{number}` has no {', '.join(sorted(SLOTS - entry.keys()))}")
    one.adam.load_state_dict({"state": entries, "param_groups": own})
