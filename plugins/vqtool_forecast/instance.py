"""Instance statistics of histories: mean, deviation and extremes of each, from it alone and never differentiated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FLAT = 1e-6  # of a history's size: a smaller deviation is float noise, and counts as this much
TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Instance:
    """What a history [..., L] is like, each value [..., 1] in float64."""

    mean: Tensor
    deviation: Tensor  # above 0 for every history
    low: Tensor
    high: Tensor

    @property
    def span(self) -> Tensor:
        """The range."""
        return self.high - self.low


@torch.no_grad()
def instance(x: Tensor) -> Instance:
    """The statistics of `x` [..., L].

    The floor under the deviation is relative to the history's own size, so series of any unit are treated alike.
    """
    x = x.double()
    mean = x.mean(-1, keepdim=True).float().double()  # as it is sent
    floor = FLAT * x.abs().amax(-1, keepdim=True)
    deviation = torch.maximum((x - mean).square().mean(-1, keepdim=True).sqrt(), floor).clamp_min(TINY)
    return Instance(mean, deviation, x.amin(-1, keepdim=True), x.amax(-1, keepdim=True))
