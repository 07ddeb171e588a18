"""Computing in bfloat16 or float16: matrix products and convolutions alone, by autocast; weights stay in float32."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vqtool.api.precision import HALVES, widened
from vqtool.api.task import Task
from vqtool.errors import VqtoolError

METHODS = ("estimate", "encode", "decode", "generate", "forecast", "quantiles", "compare", "classify", "transmit",
           "send", "receive", "embed")  # fmt: skip


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[None]:
    """The context of a precision; fp32 computes plainly."""
    return contextlib.nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=HALVES[precision])


@functools.cache
def require_precision(device: torch.device, precision: str) -> None:
    """Try a product and a convolution.

    Raises:
        VqtoolError: the precision does not exist, or this device or torch cannot compute in it.
    """
    if precision not in ("fp32", *HALVES):
        raise VqtoolError(f"there is no precision `{precision}`", hint="fp32, bf16 or fp16")
    if precision == "fp32":
        return
    try:
        with autocast(device, precision):
            x = nn.Conv1d(2, 2, 1, device=device)(torch.ones(1, 2, 4, device=device))
            (x @ x.transpose(1, 2)).sum().backward()
        done = x.dtype == HALVES[precision]
    except (RuntimeError, NotImplementedError):
        done = False
    if not done:
        raise VqtoolError(f"torch {torch.__version__} cannot compute in {precision} on `{device.type}`",
                          hint="precision fp32, or another device", exit_code=1)  # fmt: skip


def compute_in(task: Task, precision: str, device: Callable[[], torch.device]) -> None:
    """Have what a trained task can do computed in a precision, on the device as it is then; results are float32."""

    def cast(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def computed(*given: Any, **named: Any) -> Any:
            with autocast(device(), precision):
                return widened(method(*given, **named))

        return computed

    for name in METHODS:
        vars(task).pop(name, None)  # of a precision before
        method = getattr(task, name, None)
        if precision != "fp32" and method is not None:
            setattr(task, name, cast(method))
