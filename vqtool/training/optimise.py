"""The optimizers of a stage: AdamW each, its groups, learning rate, clipping, and the scaling that float16 needs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.errors import VqtoolError
from vqtool.recipe.spec import TrainOptions

MAIN, DISCRIMINATOR = "main", "discriminator"  # names of optimizers: of a task that has one, and of the discriminator


class AdamW(torch.optim.AdamW):
    """AdamW without torch's wrappers for its compiler: the first call of each would import that, for four seconds."""


for _name in ("add_param_group", "state_dict", "load_state_dict", "zero_grad"):
    setattr(AdamW, _name, inspect.unwrap(getattr(torch.optim.AdamW, _name)))
AdamW.step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))  # type: ignore[method-assign]  # as the wrapper does


class Optimiser:
    """One AdamW.

    Args:
        parameters: by name, whose second part is the role that `rates` goes by.
        options: of the stage.
        device: that the parameters are on.
        share: of the stage's learning rate that this one takes.
        betas: how slowly its two averages follow.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], options: TrainOptions, device: torch.device, *, share: float,
        betas: tuple[float, float],
    ) -> None:  # fmt: skip
        self.parameters, self.options, self.share, self.betas = parameters, options, share, betas
        self.fused = device.type in ("cpu", "cuda")  # one kernel for all parameters

    @cached_property
    def adam(self) -> AdamW:
        """Made at the first step, which `vqtool check` never takes."""
        return AdamW(self._groups(), lr=self.options.lr, betas=self.betas, fused=self.fused)

    def _groups(self) -> list[dict[str, Any]]:
        """Weight decay for matrices only: biases, gains and embeddings of one row are left alone; `rates` by role."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.parameters.items():
            share = self.share * self.options.rates.get(role_of(name), 1.0)
            decay = self.options.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((share, decay), []).append(parameter)
        groups = groups or {(1.0, 0.0): []}  # codes that follow their inputs need no parameters
        return [{"params": some, "weight_decay": decay, "share": share} for (share, decay), some in groups.items()]

    def step(self, scaler: torch.amp.GradScaler) -> bool:
        """Move the parameters, unless no gradient has reached any (of a discriminator that has not begun)."""
        if all(parameter.grad is None for parameter in self.parameters.values()):
            return False
        if self.options.clip is not None:
            scaler.unscale_(self.adam)
            nn.utils.clip_grad_norm_(self.parameters.values(), self.options.clip)
        scaler.step(self.adam)
        return True


class Optimisers(dict[str, Optimiser]):
    """All optimizers of a stage by name; they share one backward pass, and the scaler.

    Args:
        parameters: of the stage, by name.
        roles: which roles each optimizer moves; what losses learn goes with the first.
        options: of the stage; the `discriminator` has a rate and averages of its own.
        steps: how many steps the stage has.
        device: that the parameters are on.

    Raises:
        VqtoolError: a role that the stage trains has no optimizer, or two.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], roles: Mapping[str, Collection[str]], options: TrainOptions,
        steps: int, device: torch.device,
    ) -> None:  # fmt: skip
        self.options, self.steps = options, steps
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")
        own = options.discriminator
        for name, some in divided(parameters, roles).items():
            opposing = name == DISCRIMINATOR
            share = own.lr / options.lr if opposing and own.lr is not None else 1.0
            betas = own.betas if opposing else options.betas
            self[name] = Optimiser(some, options, device, share=share, betas=betas)

    def rate(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then a cosine down to `lr_end` of the peak."""
        options = self.options
        warm = max(1, round(options.warmup * self.steps))
        if step < warm:
            return options.lr * (step + 1) / warm
        along = (step - warm) / max(1, self.steps - 1 - warm)
        return options.lr * (options.lr_end + (1 - options.lr_end) * 0.5 * (1 + math.cos(math.pi * along)))

    def use(self, rate: float) -> None:
        """Set the learning rate, of which each group takes its share."""
        for one in self.values():
            for group in one.adam.param_groups:
                group["lr"] = rate * group["share"]

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to those that are there."""
        if any(one.parameters for one in self.values()):
            self.scaler.scale(loss).backward()

    def step(self) -> None:
        """Move the parameters, one optimizer after the other, and forget the gradients."""
        moved = [one.step(self.scaler) for one in self.values()]
        if any(moved):
            self.scaler.update()
        for one in self.values():
            one.adam.zero_grad(set_to_none=True)


def role_of(name: str) -> str:
    """The role, or `losses`, that a parameter of a stage belongs to."""
    return name.removeprefix("parts.").split(".")[0]


def divided(
    parameters: Mapping[str, nn.Parameter], roles: Mapping[str, Collection[str]]
) -> dict[str, dict[str, nn.Parameter]]:
    """The parameters of each optimizer, each parameter in one of them."""
    found: dict[str, dict[str, nn.Parameter]] = {name: {} for name in roles}
    for name, parameter in parameters.items():
        role = role_of(name)
        of_part = name.startswith("parts.")
        owners = [one for one, its in roles.items() if role in its] if of_part else [next(iter(roles))]
        if len(owners) != 1 or "." in owners[0] or owners[0].isdecimal():
            raise VqtoolError(
                f"the optimizers of the task should move `{role}` once, and "
                + (f"{', '.join(f'`{one}`' for one in owners)} do" if owners else "none does"),
                hint="`Task.optimizers` gives roles by name; a name has no dot and is not a number",
                exit_code=1,
            )
        found[owners[0]][name] = parameter
    return found
