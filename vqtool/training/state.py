"""A stage's resumable state: live weights, optimizer, scaler and averages, in safetensors; no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from vqtool.errors import VqtoolError
from vqtool.training import checkpoint
from vqtool.training.loop import Progress, StageLoop
from vqtool.training.rundir import RESUME, RunDir

PENDING_PREFIX = "pending."  # counts of codes since the last row of metrics.jsonl


def save_state(run: RunDir, loop: StageLoop, stage: str, more: Mapping[str, Any]) -> None:
    """Write everything that the next step depends on, and what `more` there is to know of the run."""
    tensors = dict(loop.model.tensors())
    tensors |= {"losses." + name: value for name, value in loop.module.losses.state_dict().items()}
    tensors |= {"average." + name: value for name, value in loop.average.values.items()}
    optimizer = loop.optimizer.state_dict()
    for index, entry in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in entry.items()}
    tensors |= {
        PENDING_PREFIX + name: torch.from_numpy(counts) for name, counts in loop.usage.counts(loop.quantizer).items()
    }
    run.save(RESUME, tensors, {
        **more,
        "stage": stage,
        "progress": asdict(loop.progress),
        "average_steps": loop.average.steps,
        "param_groups": optimizer["param_groups"],
        "scaler": loop.scaler.state_dict(),
        "weights": loop.module.weights,
        "moved": loop.moved,
        "knobs": loop.model.knobs(),
        **loop.model.diagnosed(),
    })  # fmt: skip


def load_state(loop: StageLoop, state: checkpoint.Checkpoint) -> None:
    """Put a loop where `save_state` found it; the parts themselves are restored already."""
    if state.about.get("fresh"):
        return
    tensors, about = state.tensors, state.about
    losses = {n.removeprefix("losses."): t for n, t in tensors.items() if n.startswith("losses.")}
    checkpoint.fill(loop.module.losses, losses, "resume.safetensors")
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".", 2)
            entries.setdefault(int(index), {})[slot] = value
    try:
        loop.optimizer.load_state_dict({"state": entries, "param_groups": about["param_groups"]})
    except ValueError as error:
        raise VqtoolError(f"the saved optimizer does not fit the recipe: {error}", exit_code=1) from error
    for name in loop.average.values:
        loop.average.values[name].copy_(tensors["average." + name])
    loop.average.steps = about["average_steps"]
    if about["scaler"]:
        loop.scaler.load_state_dict(about["scaler"])
    loop.usage.before = {n.removeprefix(PENDING_PREFIX): t.numpy() for n, t in tensors.items()
                         if n.startswith(PENDING_PREFIX)}  # fmt: skip
    loop.moved = about.get("moved", {})
    loop.progress = Progress(**about["progress"])
