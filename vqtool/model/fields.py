"""What a Python user gives a model, as a batch that fits the spec of its data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vqtool.api.data import Batch, DataSpec
from vqtool.api.parts import Encoder
from vqtool.api.spec import MASK
from vqtool.errors import VqtoolError


def batch_of(x: Tensor | Batch, spec: DataSpec, encoder: Encoder | None, device: torch.device) -> Batch:
    """A batch on the device; its fields must fit the spec, and signals of another length be of whole tokens.

    Raises:
        VqtoolError: a field is unknown, or of another shape.
    """
    batch = fields_of(x, "x")
    for name, value in batch.items():
        fits = spec.fields.get(name)
        if fits is None:
            known = ", ".join(f"`{one}`" for one in spec.fields)
            raise VqtoolError(f"the model's data have no field `{name}`", hint=f"they have {known}")
        shape, wanted = tuple(value.shape[1:]), tuple(fits.shape)
        waveform = fits.role == "mask" or (fits.role in ("signal", "wave") and len(wanted) == 2)  # of any length
        end = len(wanted) - 1 if waveform else None
        if value.dim() != len(wanted) + 1 or shape[:end] != wanted[:end]:
            text = ", ".join(["B", *map(str, wanted)])
            raise VqtoolError(f"`{name}` should have the shape [{text}], not {list(value.shape)}")
        if fits.role == "signal" and waveform and MASK not in batch:
            _check_length(name, shape[1], wanted[1], encoder)
    if MASK in batch and "x" in batch and batch[MASK].shape[-1] != batch["x"].shape[-1]:
        raise VqtoolError(f"the mask has {batch[MASK].shape[-1]} samples, and `x` has {batch['x'].shape[-1]}")
    return {name: value.to(device) for name, value in batch.items()}


def _check_length(name: str, length: int, trained: int, encoder: Encoder | None) -> None:
    """A signal longer or shorter than those of training must differ by whole tokens: nothing is cut off."""
    step = encoder.stride * encoder.bands if encoder is not None else trained
    if (rest := (length - trained) % step) or not length:
        near = f"{length - rest} or {length - rest + step}" if length > rest else f"{length - rest + step}"
        raise VqtoolError(
            f"this model does not take {length} samples of `{name}`: they must be whole tokens of {step}",
            hint=f"cut or pad it to {near} samples",
        )


def fields_of(value: Any, name: str) -> Batch:
    """Tensors or arrays by name, or one of them under `name`, as tensors; floating-point numbers as float32.

    Raises:
        VqtoolError: a value is neither a tensor nor an array of numbers.
    """
    given = value if isinstance(value, Mapping) else {name: value}
    fields: Batch = {}
    for each, one in given.items():
        try:
            tensor = torch.as_tensor(one)
        except (TypeError, ValueError, RuntimeError) as error:
            raise VqtoolError(
                f"`{each}` should be a tensor or an array of numbers, not {type(one).__name__}"
            ) from error
        fields[each] = tensor.float() if tensor.is_floating_point() else tensor
    return fields


def check_transmit(snr_db: float | None, soft: bool, doubt: float | None) -> None:
    """What a user asks of a link.

    Raises:
        VqtoolError: a number makes no sense, or options exclude each other.
    """
    if snr_db is None and soft:
        raise VqtoolError("`soft` needs an `snr_db`: what a sender sends are codes")
    if snr_db is None and doubt is not None:
        raise VqtoolError("`doubt` needs an `snr_db`: it is the other end that asks for more")
    if soft and doubt is not None:
        raise VqtoolError("`soft` sends all levels at once", hint="leave `soft` or `doubt` out")
    if snr_db is not None and not (isinstance(snr_db, int | float) and math.isfinite(snr_db)):
        raise VqtoolError(f"`snr_db` should be a number of decibels, not {snr_db!r}")
    if doubt is not None and not (isinstance(doubt, int | float) and doubt >= 0):
        raise VqtoolError(f"`doubt` should be a number of bits from 0 on, not {doubt!r}")
