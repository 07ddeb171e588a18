"""Half a cosine from one value to another: slow at both ends."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Interval

from vqtool.api import Schedule
from vqtool.errors import VqtoolError


class Cosine(Schedule):
    """`from` until `start`, `to` from `end` on, between them to + (from - to) (1 + cos(pi way)) / 2.

    The annealing of Loshchilov and Hutter 2017 (arXiv 1608.03983, equation 5) without restarts.
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
            raise VqtoolError(f"a cosine schedule cannot end at {end} before it starts at {start}")
        self.from_, self.to, self.start, self.end = from_, to, start, end

    def __call__(self, progress: float, epoch: int, step: int) -> float:
        """The value at `progress`, the share of the stage that is done."""
        if progress >= self.end:
            return self.to
        if progress <= self.start:
            return self.from_
        way = (progress - self.start) / (self.end - self.start)
        left = (1 + math.cos(math.pi * way)) / 2
        return left * self.from_ + (1 - left) * self.to
