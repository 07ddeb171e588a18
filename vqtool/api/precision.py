"""What is computed in float32 while networks compute in half precision: norms, quantizers and losses."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
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


def exact(z: Tensor) -> contextlib.AbstractContextManager[None]:
    """As `own_precision`, and products keep all of float32, whatever `torch.set_float32_matmul_precision` allows.

    With TF32 or bfloat16 some tokens would have another code as their nearest. A compiled graph takes the setting that
    holds when it runs: there is a warning instead.
    """
    if not torch.compiler.is_compiling():
        return whole_products(z)
    warn_of_rounding()
    return own_precision(z)


@contextlib.contextmanager
def whole_products(z: Tensor) -> Iterator[None]:
    """No autocast on the device of `z`, and no product of float32 that is rounded to TF32 or bfloat16."""
    backend: Any = None
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set for single backends, of which PyTorch then gives no sum
        backend = getattr(torch.backends, "cuda" if z.device.type == "cuda" else "mkldnn").matmul
        before = backend.fp32_precision
    try:
        set_precision(backend, "highest" if backend is None else "ieee")
        with own_precision(z):
            yield
    finally:
        set_precision(backend, before)


def set_precision(backend: Any, precision: str) -> None:
    """How products of float32 may be rounded, by a backend or by all; a setting that holds is not made again."""
    if backend is not None:
        backend.fp32_precision = precision
    elif torch.get_float32_matmul_precision() != precision:
        torch.set_float32_matmul_precision(precision)


def warn_of_rounding() -> None:
    """Say once that products may be rounded; run while a graph is compiled, and no part of it."""
    try:
        whole = torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:
        whole = False
    if not whole:
        warnings.warn(
            "compiled quantizers search with the precision of torch.set_float32_matmul_precision: near ties may get "
            "another code; 'highest' keeps them exact",
            stacklevel=2,
        )


# what torch.compiler.assume_constant_result does; the decorator imports torch._dynamo: two seconds
warn_of_rounding._dynamo_marked_constant = True  # type: ignore[attr-defined]  # a function takes attributes


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
