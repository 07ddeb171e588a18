"""How layers start: at zero, or as a map that keeps the norm."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def zeroed(module: M) -> M:
    """The module with all its parameters at zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def silent(layer: M) -> M:
    """A layer whose weights start at zero; of a weight-normed one the gain, since no direction is zero."""
    name = "parametrizations.weight.original0" if hasattr(layer, "parametrizations") else "weight"
    nn.init.zeros_(layer.get_parameter(name))
    return layer


def orthonormal(layer: nn.Linear) -> nn.Linear:
    """A linear map that keeps the norm (where it does not widen): the identity if it is square."""
    nn.init.eye_(layer.weight) if layer.in_features == layer.out_features else nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
