"""From the frame to quantiles: what a network reads of each step ahead, and how its outputs move the closed forms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn import functional as F

from vqtool.api import Batch
from vqtool_forecast.zero_shot.closed_forms import NAMES
from vqtool_forecast.zero_shot.frame import AHEAD, FACTS, RECENT, SEASONS

LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
MIDDLE = LEVELS.index(0.5)
PLAIN = NAMES.index("seasonal-naive")
OF_SERIES = RECENT + len(FACTS) + len(NAMES)  # numbers that say what series it is
OF_STEP = len(NAMES) + SEASONS + len(AHEAD)  # and what is known of a step
OUTPUTS = len(NAMES) + 1 + len(LEVELS)  # weights of the closed forms, a correction, and the quantiles' distances


def of_series(batch: Batch, *, forms: bool) -> Tensor:
    """[B, OF_SERIES] what the network reads of a history; without `forms` nothing that closed forms know."""
    errors = batch["errors"] if forms else torch.zeros_like(batch["errors"])
    return torch.cat([torch.asinh(batch["x"][:, 0]), batch["facts"], errors], 1)


def of_steps(batch: Batch, *, forms: bool) -> Tensor:
    """[B, steps, OF_STEP] what it reads of each step."""
    each = batch["forms"] if forms else batch["forms"][:, PLAIN : PLAIN + 1].expand(-1, len(NAMES), -1)
    return torch.cat([torch.asinh(each), torch.asinh(batch["same"]), batch["ahead"]], 1).transpose(1, 2)


def quantiles(batch: Batch, outputs: Tensor, *, forms: bool) -> tuple[Tensor, Tensor]:
    """Quantiles [B, steps, Q] at `LEVELS`, ascending, and the weights [B, steps, forms] of the closed forms.

    The median is a weighted mean of the closed forms, those with the smaller errors in the past first, and a
    correction. Its unit, and that of the distances between quantiles, is the least past error.
    """
    weights, correction, gaps = outputs.split((len(NAMES), 1, len(LEVELS)), -1)
    unit = (batch["errors"].amin(1).exp() if forms else torch.ones(len(outputs), device=outputs.device))[:, None, None]
    if forms:
        weights = (weights - batch["errors"][:, None]).softmax(-1)
        centre = (weights * batch["forms"].transpose(1, 2)).sum(-1, keepdim=True)
    else:
        weights = torch.zeros_like(weights)
        centre = batch["forms"][:, PLAIN, :, None]
    width = F.softplus(gaps - 1)
    up = width[..., MIDDLE + 1 :].cumsum(-1)
    down = width[..., :MIDDLE].flip(-1).cumsum(-1).flip(-1)
    around = torch.cat([-down, torch.zeros_like(correction), up], -1)
    return (centre + unit * (correction + around)).maximum(batch["floor"][:, None, None]), weights


def pinball(found: Tensor, future: Tensor) -> Tensor:
    """The mean pinball loss of quantiles [B, steps, Q] at `LEVELS`, over the known values of `future` [B, steps]."""
    levels = torch.tensor(LEVELS, device=found.device)
    off = future.nan_to_num()[..., None] - found
    each = torch.maximum(levels * off, (levels - 1) * off).mean(-1)
    known = ~future.isnan()
    return (each * known).sum() / known.sum().clamp_min(1)


@cache
def scores(levels: Sequence[float]) -> Tensor:
    """Normal scores of levels."""
    return torch.tensor([NormalDist().inv_cdf(level) for level in levels])


def at_scores(found: Tensor, z: Tensor) -> Tensor:
    """Values [B, S, steps] at normal scores `z` [B or 1, S, steps] of quantiles [B, steps, Q] at `LEVELS`.

    Straight between the levels over their normal scores, and on along the outermost piece beyond them.
    """
    known = scores(LEVELS).to(found)
    z = z.expand(len(found), -1, -1)
    after = torch.searchsorted(known, z.contiguous()).clamp(1, len(LEVELS) - 1)
    part = (z - known[after - 1]) / (known[after] - known[after - 1])
    table = found[:, None].expand(-1, z.shape[1], -1, -1)
    low, high = (table.gather(-1, (after - back)[..., None])[..., 0] for back in (1, 0))
    return low + part * (high - low)


def score_of(found: Tensor, values: Tensor) -> Tensor:
    """Normal scores [B, steps] of `values` in quantiles [B, steps, Q] at `LEVELS`, from -3.5 to 3.5; NaN stays."""
    known = scores(LEVELS).to(found)
    found = found + torch.arange(len(LEVELS), device=found.device) * 1e-6
    after = (found < values[..., None]).sum(-1).clamp(1, len(LEVELS) - 1)
    low, high = (found.gather(-1, (after - back)[..., None])[..., 0] for back in (1, 0))
    part = (values - low) / (high - low)
    return (known[after - 1] + part * (known[after] - known[after - 1])).clamp(-3.5, 3.5)
