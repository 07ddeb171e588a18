"""A straight line from one value to another."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import Interval

from vqtool.api import Schedule
from vqtool.errors import VqtoolError


class Linear(Schedule):
    """`from` until `start`, `to` from `end` on, straight between.

    With `from` 0 on `task.own_tokens` this is the linear decay of scheduled sampling (Bengio et al. 2015, arXiv
    1506.03099, section 2.4): theirs is the probability of the *true* token, which falls; here that of the model's
    *own*, which rises.
    """

    def __init__(
        self,
        *,
        from_: Annotated[float, Doc("value at the start")],
        to: Annotated[float, Doc("value at the end")],
        start: Annotated[float, Interval(ge=0.0, le=1.0), Doc("share of the stage at which it starts to move")] = 0.0,
        end: Annotated[float, Interval(ge=0.0, le=1.0), Doc("share of the stage at which it arrives")] = 1.0,
    ) -> None:
        if start > end:
            raise VqtoolError(f"a linear schedule cannot end at {end} before it starts at {start}")
        self.from_, self.to, self.start, self.end = from_, to, start, end

    def __call__(self, progress: float, epoch: int, step: int) -> float:
        """The value at `progress`, the share of the stage that is done."""
        if progress >= self.end:
            return self.to
        if progress <= self.start:
            return self.from_
        way = (progress - self.start) / (self.end - self.start)
        return (1 - way) * self.from_ + way * self.to
