"""Modules that hold quantizers of vqtool: their codebooks move after a step, as `vqtool.attach` moves them."""

from __future__ import annotations

import torch
from torch import nn

from vqtool.api import Quantizer
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.updates import attach

UPDATED = "steps_at_update"  # of quantizers: None once somebody has updated them
PLACE = "_own_updates"


def holds_own(module: nn.Module) -> bool:
    """Whether a module is a quantizer of vqtool, or holds one."""
    return any(isinstance(sub, Quantizer) for sub in module.modules())


def refuses(module: nn.Module, outcome: object) -> bool:
    """Whether what came of a call in evaluation is how quantizers of vqtool say that they were never started."""
    waiting = (not sub.initialised for sub in module.modules() if isinstance(sub, Quantizer))
    return isinstance(outcome, VqtoolError) and any(waiting)


class OwnUpdates:
    """The quantizers of a fresh module, attached to an optimizer of nothing; kept with the module."""

    def __init__(self, module: nn.Module) -> None:
        self.optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.0)
        self.attached = attach(self.optimizer, module)
        self.begun = False
        for quantizer in self.attached.quantizers:
            vars(quantizer).pop(UPDATED, None)  # what a user's own training left in an instance
        vars(module)[PLACE] = self

    def step(self) -> None:
        """Move the codebooks, unless the module does so itself in its forward."""
        if not self.begun and any(vars(q).get(UPDATED, 0) is None for q in self.attached.quantizers):
            self.attached.detach()
        self.begun = True
        self.optimizer.step()


def step_own(module: nn.Module) -> None:
    """The step that follows a training pass, where `OwnUpdates` were made of the module."""
    if (updates := vars(module).get(PLACE)) is not None:
        updates.step()
