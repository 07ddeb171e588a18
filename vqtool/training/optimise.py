"""AdamW over a stage's parameters: its groups, learning rate, clipping, and the scaling that float16 needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.recipe.spec import TrainOptions


class Optimiser:
    """Moves parameters by the gradients of losses.

    Args:
        parameters: by name, whose second part is the role that `rates` goes by.
        options: of the stage.
        steps: how many steps it has.
        device: that the parameters are on.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], options: TrainOptions, steps: int, device: torch.device
    ) -> None:
        self.parameters, self.options, self.steps = parameters, options, steps
        fused = device.type in ("cpu", "cuda")  # one kernel for all parameters
        first, second = options.betas
        self.adam = torch.optim.AdamW(self._groups(), lr=options.lr, betas=(first, second), fused=fused)
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")

    def _groups(self) -> list[dict[str, Any]]:
        """Weight decay for matrices only: biases, gains and embeddings of one row are left alone; `rates` by role."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.parameters.items():
            share = self.options.rates.get(name.removeprefix("parts.").split(".")[0], 1.0)
            decay = self.options.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((share, decay), []).append(parameter)
        groups = groups or {(1.0, 0.0): []}  # codes that follow their inputs need no parameters
        return [{"params": some, "weight_decay": decay, "share": share} for (share, decay), some in groups.items()]

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
        for group in self.adam.param_groups:
            group["lr"] = rate * group["share"]

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to those that are there."""
        if self.parameters:
            self.scaler.scale(loss).backward()

    def step(self) -> None:
        """Move the parameters, and forget the gradients."""
        if not self.parameters:
            return
        if self.options.clip is not None:
            self.scaler.unscale_(self.adam)
            nn.utils.clip_grad_norm_(self.parameters.values(), self.options.clip)
        self.scaler.step(self.adam)
        self.scaler.update()
        self.adam.zero_grad(set_to_none=True)
