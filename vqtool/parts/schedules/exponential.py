"""Scheduled sampling, exponential: the probability of the model's own token rises at once, then ever more slowly."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import Gt, Interval, Lt

from vqtool.api import Schedule


class Exponential(Schedule):
    """cap (1 - k^step).

    Bengio et al. 2015 (arXiv 1506.03099, section 2.4) give the probability of the *true* token, k^i, which falls; this
    is that of the model's *own* token, which rises, held below `cap`.
    """

    def __init__(
        self,
        *,
        k: Annotated[float, Gt(0.0), Lt(1.0), Doc("what the true token's probability is multiplied by each step")],
        cap: Annotated[float, Interval(ge=0.0, le=1.0), Doc("the value it approaches")] = 1.0,
    ) -> None:
        self.k, self.cap = k, cap

    def __call__(self, progress: float, epoch: int, step: int) -> float:
        """The value at `step`."""
        return self.cap * (1 - self.k**step)
