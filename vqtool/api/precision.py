"""What is computed in float32 while networks compute in half precision: norms, quantizers and losses."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def own_precision(z: Tensor) -> contextlib.AbstractContextManager[None]:
    """Turns autocast off for the device of `z`: distances, counts and sums need float32."""
    device = z.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def in_float32(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose first argument is a tensor or a batch, computed in float32 whatever autocast says."""

    @functools.wraps(method)
    def computed(self: Any, given: Any, *others: Any, **named: Any) -> Any:
        with own_precision(next(iter(given.values())) if isinstance(given, Mapping) else given):
            return method(self, *widened((given, *others)), **widened(named))

    return computed


def widened(value: Any) -> Any:
    """The same with every tensor of half precision in float32, inside of mappings, sequences and dataclasses too."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in HALVES.values() else value
    if isinstance(value, Mapping):
        return {name: widened(one) for name, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(widened(one) for one in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = {one.name: widened(getattr(value, one.name)) for one in dataclasses.fields(value) if one.init}
        return dataclasses.replace(value, **given)
    return value
