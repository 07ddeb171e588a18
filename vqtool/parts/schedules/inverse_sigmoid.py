"""Scheduled sampling, inverse sigmoid: the probability of the model's own token stays low, rises, and levels off."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge, Interval

from vqtool.api import Schedule


class InverseSigmoid(Schedule):
    """cap (1 - k / (k + exp(step / k))); half of `cap` is reached at step k ln k.

    Bengio et al. 2015 (arXiv 1506.03099, section 2.4) give the probability of the *true* token, k / (k + exp(i / k)),
    which falls; this is that of the model's *own* token, which rises, held below `cap`.
    """

    def __init__(
        self,
        *,
        k: Annotated[float, Ge(1.0), Doc("how late and how gently it rises, in steps")],
        cap: Annotated[float, Interval(ge=0.0, le=1.0), Doc("the value it approaches")] = 1.0,
    ) -> None:
        self.k, self.cap = k, cap

    def __call__(self, progress: float, epoch: int, step: int) -> float:
        """The value at `step`."""
        late = step / self.k - math.log(self.k)  # 1 - k / (k + e^x) = 1 / (1 + e^-(x - ln k)), which cannot overflow
        if late < 0:
            return self.cap * math.exp(late) / (1 + math.exp(late))
        return self.cap / (1 + math.exp(-late))
