"""A value multiplied by the same factor again and again, down (or up) to a limit."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from annotated_doc import Doc
from annotated_types import Gt

from vqtool.api import Schedule
from vqtool.errors import VqtoolError


class Geometric(Schedule):
    """from * ratio^n, never beyond `to`, n counting steps or epochs; without `ratio`, `to` is reached at the end.

    The annealing of the Gumbel-softmax temperature: max(to, from * ratio^step) in wav2vec 2.0 (Baevski et al. 2020,
    arXiv 2006.11477, section 4.2: from 2 to 0.5 with 0.999995).
    """

    def __init__(
        self,
        *,
        from_: Annotated[float, Gt(0.0), Doc("value at the start")],
        to: Annotated[float, Gt(0.0), Doc("the limit: lowest value of a falling schedule, highest of a rising one")],
        ratio: Annotated[
            Annotated[float, Gt(0.0)] | None, Doc("the factor; left out: what leads to `to` at the end")
        ] = None,
        per: Annotated[Literal["step", "epoch"], Doc("what `ratio` is applied once for")] = "step",
    ) -> None:
        if ratio is not None and from_ != to and (ratio - 1) * (to - from_) <= 0:
            raise VqtoolError(
                f"a ratio of {ratio} never leads from {from_} to {to}",
                hint=f"a ratio {'above' if to > from_ else 'below'} 1 does",
            )
        self.from_, self.to, self.ratio, self.per = from_, to, ratio, per

    def __call__(self, progress: float, epoch: int, step: int) -> float:
        """The value at `progress` (without a ratio), else in `epoch` or at `step`."""
        way = math.log(self.to / self.from_)
        times = step if self.per == "step" else epoch
        gone = way * progress if self.ratio is None else times * math.log(self.ratio)
        if abs(gone) >= abs(way):
            return self.to
        return min(max(self.from_ * math.exp(gone), min(self.from_, self.to)), max(self.from_, self.to))
