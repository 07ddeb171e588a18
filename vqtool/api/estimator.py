"""The contract of gradient estimators: how the gradient passes the choice of a code."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor


class Estimator:
    """Base of gradient estimators; keyword-only parameters of the constructor are the recipe's options."""

    identity: ClassVar[bool] = False  # promise: the gradient by the input is exactly that by the output
    trains_codes: ClassVar[bool] = False  # the code vectors get a share of the gradient, so they must be trained

    def estimate(self, z: Tensor, value: Tensor) -> Tensor:
        """`value` [N, d] bit for bit, with a gradient to `z` [N, d]; asked only where one of both wants a gradient."""
        raise NotImplementedError
