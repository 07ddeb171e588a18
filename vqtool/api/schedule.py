"""The schedule contract: a number that changes while a stage trains."""

from __future__ import annotations


class Schedule:
    """Keyword-only constructor parameters are the recipe's options; `from_` is written `from` there."""

    def __call__(self, progress: float, epoch: int, step: int) -> float:
        """The value at `progress` in [0, 1] through the stage, in `epoch`, at `step` (both from 0)."""
        raise NotImplementedError
