"""From one value to another: in a straight line, or as half a cosine."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Interval

from vqtool.api import Schedule
from vqtool.errors import VqtoolError


# kind: linear
class Linear(Schedule):
    """A straight line from one value to another.

    `from` until `start`, `to` from `end` on, straight between.

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
            kind = type(self).__name__.lower()
            raise VqtoolError(f"a {kind} schedule cannot end at {end} before it starts at {start}")
        self.from_, self.to, self.start, self.end = from_, to, start, end

    def __call__(self, progress: float, epoch: int, step: int) -> float:
        """The value at `progress`, the share of the stage that is done."""
        if progress >= self.end:
            return self.to
        if progress <= self.start:
            return self.from_
        of_from, of_to = self.shares((progress - self.start) / (self.end - self.start))
        return of_from * self.from_ + of_to * self.to

    def shares(self, way: float) -> tuple[float, float]:
        """The shares of `from` and of `to`, `way` from 0 to 1 between them."""
        return 1 - way, way


# kind: cosine
class Cosine(Linear):
    """Half a cosine from one value to another: slow at both ends.

    `from` until `start`, `to` from `end` on, between them to + (from - to) (1 + cos(pi way)) / 2.

    The annealing of Loshchilov and Hutter 2017 (arXiv 1608.03983, equation 5) without restarts.
    """

    def shares(self, way: float) -> tuple[float, float]:
        """The shares of `from` and of `to`, `way` from 0 to 1 between them."""
        left = (1 + math.cos(math.pi * way)) / 2
        return left, 1 - left
