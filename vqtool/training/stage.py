"""A stage: task, parts and losses as one module, which DDP wraps; its knobs; the moving average of its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.api.data import Batch, DataSpec
from vqtool.api.loss import VERDICTS, Adversarial, reads
from vqtool.api.precision import own_precision, widened
from vqtool.api.quantizer import Quantized
from vqtool.api.schedule import Schedule
from vqtool.api.spec import MASK
from vqtool.api.task import Parts, Task
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.layers.lengths import trimmed
from vqtool.model.build import has_opponent
from vqtool.model.format import BALANCE, BYPASS, LOSSES
from vqtool.model.model import Model
from vqtool.recipe import StageSpec
from vqtool.training.adversary import Balance, Verdict, verdict
from vqtool.training.masked import check_lengths, check_losses
from vqtool.training.optimise import DISCRIMINATOR


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
        self.opponent = has_opponent(model.recipe, stage)
        self.opposing = True  # whether the discriminator has begun; the loop says when
        self.reads = {name: reads(loss.forward) for name, loss in self.losses.items()}
        self.opposed = [name for name, (needs, takes) in self.reads.items() if (needs | takes) & VERDICTS]
        self.balance = Balance(self.opposed) if self.opponent and stage.train.discriminator.balance else None
        self.spec, self.rates = model.spec, stage.train.rates
        self._check_names(stage, model.spec)
        check_lengths(model, stage)

    def _check_names(self, stage: StageSpec, spec: DataSpec) -> None:
        """Every loss must find what it reads; the error says what is missing."""
        there = self.task.provides | frozenset(spec.fields) | (VERDICTS if self.opponent else frozenset())
        self._check_opponent(stage)
        for name, (needs, _) in self.reads.items():
            missing = sorted(needs - there)
            if missing:
                raise VqtoolError(
                    f"loss `{name}` needs {', '.join(f'`{n}`' for n in missing)}; task `{stage.task.kind}` and data "
                    f"provide {', '.join(f'`{n}`' for n in sorted(there))}",
                    where=f"stage `{stage.name}`",
                )
        if spec.named("mask"):
            check_losses(stage, self.reads, self.task, spec)

    def _check_opponent(self, stage: StageSpec) -> None:
        """A discriminator needs a pair to compare, a loss that trains it, and one that holds before it begins."""
        if not self.opponent:
            return
        if not self.weights.keys() - set(self.opposed):
            raise VqtoolError("every loss of the stage reads the discriminator: none compares the signals themselves",
                              hint="mse = 1", where=f"stage `{stage.name}`")  # fmt: skip
        missing = sorted({"x_hat", "target"} - self.task.provides)
        if missing:
            raise VqtoolError(
                f"a discriminator compares `x_hat` with `target`, and task `{stage.task.kind}` does not provide "
                + ", ".join(f"`{n}`" for n in missing), where=f"stage `{stage.name}`",
            )  # fmt: skip
        if not any(isinstance(loss, Adversarial) for loss in self.losses.values()):
            raise VqtoolError(
                "no loss of the stage trains the discriminator that "
                + ", ".join(f"`{n}`" for n in self.opposed) + " reads",
                hint="hinge = 1", where=f"stage `{stage.name}`",
            )  # fmt: skip

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], dict[str, Any]]:
        """(what is differentiated, what is logged: each loss unweighted, and figures; all that the task gave).

        `loss` is the weighted sum, but for the losses that read a discriminator: these say how the two players stand,
        and cannot be compared from step to step.
        """
        batch = trimmed(self.spec, batch)
        outputs = self.task.step(self.parts, batch)
        if MASK in batch:
            outputs.setdefault(MASK, batch[MASK])
        said = self._verdict(outputs)
        named = {**batch, **outputs, **(said.named if said is not None else {})}
        terms: dict[str, Tensor] = {}
        weighted: dict[str, Tensor] = {}
        adversarial: dict[str, Tensor] = {}  # unweighted
        for name, weight in self.weights.items():
            if said is None and name in self.opposed:
                continue
            value = self._value(name, named)
            terms[name] = value.detach()
            if weight and name in self.opposed:
                adversarial[name] = value
            elif weight:  # a weight of zero costs nothing and cannot spread a NaN
                weighted[name] = value * weight
        if not weighted:
            raise VqtoolError("all loss weights of the stage are zero: there is nothing to train")
        total = _sum(weighted)
        terms = {"loss": total.detach(), **terms}
        terms |= {name: value.detach() for name, value in outputs.get("figures", {}).items()}
        if said is None:
            return total, terms, outputs
        terms |= {name: value.detach() for name, value in said.figures.items()}
        return self._opposed(total, adversarial, outputs["x_hat"], terms) + said.loss, terms, outputs

    def _value(self, name: str, named: Mapping[str, Any]) -> Tensor:
        """One loss, unweighted and in float32: a module, or a term of the quantizer."""
        if name not in self.losses:
            return _term(named.get("quantized"), name)
        needs, takes = self.reads[name]
        arguments = {n: named[n] for n in needs} | {n: named[n] for n in takes if n in named}
        with own_precision(next(iter(named.values()))):
            return scalar(name, self.losses[name](**widened(arguments)))

    def _verdict(self, outputs: Mapping[str, Any]) -> Verdict | None:
        """What the discriminator says, once it has begun; measured it always is."""
        if not self.opponent or (torch.is_grad_enabled() and not self.opposing):
            return None
        losses = {name: self.losses[name] for name in self.opposed}
        return verdict(self.parts.discriminator, outputs["x_hat"], outputs["target"], losses, self.weights)

    def _opposed(self, total: Tensor, losses: dict[str, Tensor], x_hat: Tensor, terms: dict[str, Tensor]) -> Tensor:
        """The total and the losses that read the discriminator, balanced; notes how large they are beside it."""
        sizes = {name: loss.detach().abs() / total.detach().abs().clamp_min(1e-30) for name, loss in losses.items()}
        if self.balance is not None and torch.is_grad_enabled():
            scales, sizes = self.balance(x_hat, total, losses)
            losses = {name: loss * scales[name] for name, loss in losses.items()}
            terms |= {f"balance.{name}": scale for name, scale in scales.items()}
        if losses and torch.is_grad_enabled():  # the balance is one of gradients
            terms["adversarial.ratio"] = _sum({name: size * abs(self.weights[name]) for name, size in sizes.items()})
        return _sum({"": total} | {name: loss * self.weights[name] for name, loss in losses.items()})

    def optimizers(self) -> dict[str, Collection[str]]:
        """The roles that each optimizer moves, by its name."""
        found = dict(self.task.optimizers(self.parts))
        return found | ({DISCRIMINATOR: (DISCRIMINATOR,)} if self.opponent else {})

    def balanced(self) -> dict[str, Tensor]:
        """The averages of the balance, under the names they have in a resumable state."""
        return (
            {BALANCE + name: value for name, value in self.balance.state_dict().items()}
            if self.balance is not None
            else {}
        )

    def learned_by_losses(self) -> dict[str, Tensor]:
        """What losses learned (a physical constant, say), under the names it has in a checkpoint."""
        return {LOSSES + name: value for name, value in self.losses.state_dict().items()}

    def trained(self) -> list[nn.Module]:
        """The modules that this stage changes: a part whose rate is 0 stays, codes that follow an average with it."""
        roles = [*self.task.trains, *([DISCRIMINATOR] if self.opponent else [])]
        learning = [role for role in roles if role in self.parts and self.rates.get(role, 1.0) > 0]
        return [self.parts[role] for role in learning] + list(self.losses.values())

    def compile_parts(self) -> None:
        """Compile what the task trains, each part by itself; a quantizer's codes stay those of its plain arithmetic."""
        for role in self.task.trains:
            if role != "quantizer" and role in self.parts:
                self.parts[role].compile()

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


def _sum(values: Mapping[str, Tensor]) -> Tensor:
    """The sum of some losses."""
    first, *rest = values.values()
    return sum(rest, first)


def _term(quantized: Quantized | None, name: str) -> Tensor:
    if quantized is None or name not in quantized.terms:
        raise VqtoolError(f"the task's quantizer gives no term `{name}` in this stage")
    return quantized.terms[name]


class Knobs:
    """What a stage sets once and what it schedules: `quantizer.temperature`, `task.own_tokens`, `losses.mse`, `lr`."""

    def __init__(self, module: StageModule, stage: StageSpec, steps: int, per_epoch: int) -> None:
        self.module, self.steps, self.per_epoch = module, steps, per_epoch
        self.schedules: dict[str, Schedule] = {
            s.target: catalog().make("schedule", s.kind, s.options) for s in stage.schedules
        }
        self._check_bypass(stage)
        self.now: dict[str, float] = {}  # what `move` set last
        for target, value in stage.set.items():
            self._set(target, value)

    def _check_bypass(self, stage: StageSpec) -> None:
        """A stage may begin with the quantizer bypassed, if it trains it without need of codes, and ends with codes."""
        share, task = stage.train.bypass, self.module.task
        trains = "quantizer" in task.trains and "quantizer" in self.module.parts
        if share and trains:
            if BYPASS in self.schedules:
                raise VqtoolError(f"`bypass` and a schedule of `{BYPASS}` exclude each other",
                                  where=f"stage `{stage.name}`")  # fmt: skip
            options = {"from_": 1.0, "to": 0.0, "start": share, "end": share}
            self.schedules[BYPASS] = catalog().make("schedule", "linear", options)
        if BYPASS not in self.schedules and BYPASS not in stage.set:
            return
        codes = task.needs_codes or ("channel" in task.uses and "channel" in self.module.parts)
        if not trains or codes:
            why = f"task `{stage.task.kind}` " + ("needs codes here" if codes else "does not train the quantizer")
            raise VqtoolError(f"the quantizer cannot be bypassed: {why}", where=f"stage `{stage.name}`")
        if BYPASS in stage.set or self.bypass(self.steps - 1):
            raise VqtoolError(f"stage `{stage.name}` would end with the quantizer bypassed, as a model without codes",
                              hint="bypass = 0.2 does without it for a fifth of the steps")  # fmt: skip

    def bypass(self, step: int) -> float:
        """`quantizer.bypass` at a step; 0 before the first."""
        return self._at(self.schedules[BYPASS], step) if BYPASS in self.schedules and step >= 0 else 0.0

    def _at(self, schedule: Schedule, step: int) -> float:
        """What a schedule gives at a step, counted from 0."""
        return schedule(step / max(1, self.steps - 1), step // self.per_epoch, step)

    def move(self, step: int) -> dict[str, float]:
        """Set every scheduled knob to its value at a step; returns them for the log."""
        values = {name: self._at(schedule, step) for name, schedule in self.schedules.items()}
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
