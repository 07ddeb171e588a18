"""The same value from the first step to the last."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc

from vqtool.api import Schedule


class Constant(Schedule):
    """value."""

    def __init__(self, *, value: Annotated[float, Doc("the value")]) -> None:
        self.value = value

    def __call__(self, progress: float, epoch: int, step: int) -> float:
        """The value."""
        return self.value
