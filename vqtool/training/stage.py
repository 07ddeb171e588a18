"""A stage: task, parts and losses as one module, which DDP wraps; its knobs; the moving average of its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.api.data import Batch, DataSpec
from vqtool.api.loss import reads
from vqtool.api.quantizer import Quantized
from vqtool.api.schedule import Schedule
from vqtool.api.task import Parts, Task
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.model.format import LOSSES
from vqtool.model.model import Model
from vqtool.recipe import StageSpec


class StageModule(nn.Module):
    """`forward(batch)` gives (total loss, unweighted terms, the task's outputs)."""

    def __init__(self, model: Model, stage: StageSpec) -> None:
        super().__init__()
        self.parts: Parts = model.parts
        self.task: Task = model.tasks[stage.name]
        self.weights = {loss.name: float(loss.weight) for loss in stage.losses}
        self.losses = nn.ModuleDict(
            {loss.name: catalog().make("loss", loss.kind, loss.options, model.spec)
             for loss in stage.losses if loss.kind is not None}
        )  # fmt: skip
        self.reads = {name: reads(loss.forward) for name, loss in self.losses.items()}
        self._check_names(stage, model.spec)

    def _check_names(self, stage: StageSpec, spec: DataSpec) -> None:
        """Every loss must find what it reads; the error says what is missing."""
        there = self.task.provides | frozenset(spec.fields)
        for name, (needs, _) in self.reads.items():
            missing = sorted(needs - there)
            if missing:
                raise VqtoolError(
                    f"loss `{name}` needs {', '.join(f'`{n}`' for n in missing)}; task `{stage.task.kind}` and data "
                    f"provide {', '.join(f'`{n}`' for n in sorted(there))}",
                    where=f"stage `{stage.name}`",
                )

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], dict[str, Any]]:
        """The weighted sum of the losses, what is logged (each loss unweighted, and figures), all the task gave."""
        outputs = self.task.step(self.parts, batch)
        named = {**batch, **outputs}
        quantized = outputs.get("quantized")
        total = None
        terms: dict[str, Tensor] = {}
        for name, weight in self.weights.items():
            if name in self.losses:
                needs, takes = self.reads[name]
                arguments = {n: named[n] for n in needs} | {n: named[n] for n in takes if n in named}
                value = scalar(name, self.losses[name](**arguments))
            else:
                value = _term(quantized, name)
            terms[name] = value.detach()
            if weight:  # a weight of zero costs nothing and cannot spread a NaN
                total = value * weight if total is None else total + value * weight
        if total is None:
            raise VqtoolError("all loss weights of the stage are zero: there is nothing to train")
        return total, terms | {name: value.detach() for name, value in outputs.get("figures", {}).items()}, outputs

    def learned_by_losses(self) -> dict[str, Tensor]:
        """What losses learned (a physical constant, say), under the names it has in a checkpoint."""
        return {LOSSES + name: value for name, value in self.losses.state_dict().items()}

    def trained(self) -> list[nn.Module]:
        """The modules whose parameters this stage changes."""
        return [self.parts[role] for role in self.task.trains if role in self.parts] + list(self.losses.values())

    def freeze(self) -> None:
        """Only what this stage trains is in training mode and takes gradients."""
        self.eval().requires_grad_(False)
        for module in self.trained():
            module.train().requires_grad_(True)


def scalar(name: str, value: Any) -> Tensor:
    """What a loss gave, if it is one number."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.reshape(())
    given = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{type(value).__name__}"
    raise VqtoolError(
        f"loss `{name}` gave {given}, not a tensor of one number", hint="its mean, for example", exit_code=1
    )


def _term(quantized: Quantized | None, name: str) -> Tensor:
    if quantized is None or name not in quantized.terms:
        raise VqtoolError(f"the task's quantizer gives no term `{name}` in this stage")
    return quantized.terms[name]


class Knobs:
    """What a stage sets once and what it schedules: `quantizer.temperature`, `task.own_tokens`, `losses.mse`, `lr`."""

    def __init__(self, module: StageModule, stage: StageSpec) -> None:
        self.module = module
        self.schedules: dict[str, Schedule] = {
            s.target: catalog().make("schedule", s.kind, s.options) for s in stage.schedules
        }
        self.now: dict[str, float] = {}  # what `move` set last
        for target, value in stage.set.items():
            self._set(target, value)

    def move(self, progress: float, epoch: int, step: int) -> dict[str, float]:
        """Set every scheduled knob to its value now; returns them for the log."""
        values = {name: schedule(progress, epoch, step) for name, schedule in self.schedules.items()}
        for name, value in values.items():
            self._set(name, value)
        self.now = values
        return values

    def _set(self, target: str, value: Any) -> None:
        owner, _, knob = target.partition(".")
        if owner == "lr":  # read by the loop from what `move` returns
            return
        if owner == "losses":
            self.module.weights[knob] = float(value)
        else:
            setattr(self.module.task if owner == "task" else self.module.parts[owner], knob, value)


def not_finite(terms: Mapping[str, Tensor], stage: str, step: int) -> VqtoolError:
    """The error for a loss that is not a number, naming the term; raised before it reaches the weights."""
    bad = [name for name, value in terms.items() if not torch.isfinite(value)] or ["total"]
    return VqtoolError(
        f"loss {', '.join(f'`{n}`' for n in bad)} became NaN or infinite in stage `{stage}` at step {step}",
        hint='a lower `lr`, `clip = 1.0`, or `precision = "fp32"`; the last checkpoint is untouched',
        exit_code=1,
    )


class Average:
    """Exponential moving average of the trained parameters; a `decay` of 0 switches it off.

    The decay warms up as min(decay, (1 + n) / (10 + n)) after n steps, so that the start is soon forgotten.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.decay = decay
        self.steps = 0
        self.values = {name: p.detach().clone() for name, p in parameters.items()} if decay else {}

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the parameters as they are now."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        torch._foreach_lerp_(list(self.values.values()), [p.detach() for p in self.parameters.values()], 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters hold their average."""
        if not self.decay:
            yield
            return
        live = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._copy(self.values)
        try:
            yield
        finally:
            self._copy(live)

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
