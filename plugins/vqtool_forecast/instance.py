"""Instance statistics of histories: mean, deviation and range of each, from it alone and never differentiated."""

from __future__ import annotations

import torch
from torch import Tensor

FLAT = 1e-6  # of a history's size: a smaller deviation is float noise, and counts as this much
TINY = 1e-30


@torch.no_grad()
def statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviation and range [..., 1] of `x` [..., L], in float64; the deviation is above 0 for every history.

    The floor under the deviation is relative to the history's own size, so series of any unit are treated alike.
    """
    x = x.double()
    mean = x.mean(-1, keepdim=True).to(torch.float32).double()  # as it is sent
    floor = FLAT * x.abs().amax(-1, keepdim=True)
    deviation = (x - mean).square().mean(-1, keepdim=True).sqrt()
    span = x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)
    return mean, torch.maximum(deviation, floor).clamp_min(TINY), span
