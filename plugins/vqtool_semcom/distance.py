"""The distance of a path from one that is held fixed, in units of the spread of the latter."""

from __future__ import annotations

from torch import Tensor


def distance(soft: Tensor, hard: Tensor) -> Tensor:
    """|soft - hard|^2 over the variance of `hard`, which gets no gradient."""
    hard = hard.detach().float()
    return (soft.float() - hard).square().mean() / (hard.var(correction=0) + 1e-8)
