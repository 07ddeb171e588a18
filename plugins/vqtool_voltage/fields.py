"""The fields of a batch of currents and voltages: what each is called, its unit, and what may be a condition."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import Batch, DataSpec, Field
from vqtool.api.data import FieldRole
from vqtool.errors import VqtoolError

SCALARS = {"freq_hz": "log_frequency", "temp_c": "temperature", "i_pk_a": "log_current_amplitude"}
CONDITIONS = (*SCALARS, "material")
TARGET_SIDE = {
    "b_pk_t": "the flux density's peak is the integral of the voltage",
    "v_rms": "it is the voltage's own rms value",
    "loss_w_m3": "it is the mean of voltage times current",
}


def check_conditions(conditions: Sequence[str]) -> None:
    """Refuse unknown conditions and those that are known only with the voltage."""
    for name in conditions:
        if name in TARGET_SIDE:
            raise VqtoolError(
                f"`{name}` cannot be a condition: {TARGET_SIDE[name]}, so it gives away the answer in evaluation and is"
                " unknown when a voltage is to be generated",
                hint="use `i_pk_a`, the amplitude of the current",
                where="[data] conditions",
            )
        if name not in CONDITIONS:
            close = difflib.get_close_matches(name, CONDITIONS, 1)
            hint = f"did you mean `{close[0]}`?" if close else "conditions are: " + ", ".join(CONDITIONS)
            raise VqtoolError(f"`{name}` is not a condition", hint=hint, where="[data] conditions")


def check_fields(spec: DataSpec, owner: str) -> None:
    """Refuse data without a current of the voltage's length, or without a time scale.

    Raises:
        VqtoolError: with the names that the arrays of a file should have.
    """
    there = spec.fields
    current = there.get("current")
    missing = [] if current is not None and len(current.shape) == 2 else ["current"]
    if not {"frequency", "dt"} & set(there):
        missing.append("frequency")
    if missing:
        raise VqtoolError(
            f"{owner} needs {' and '.join(f'`{name}`' for name in missing)}; the data have "
            + ", ".join(f"`{name}`" for name in there),
            hint="in a file for `arrays`: `wave_current` [n, L] in A and `extra_frequency` [n] in Hz (or `extra_dt` in"
            " s); `category_material` [n] where there are several",
            where="[data]",
        )
    if current is not None and tuple(current.shape) != (1, spec.length):
        raise VqtoolError(
            f"{owner} needs one current of {spec.length} samples, as many as the voltage; it has the shape"
            f" {tuple(current.shape)}",
            where="[data]",
        )
    if spec.channels != 1:
        raise VqtoolError(f"{owner} needs one voltage a row; there are {spec.channels} channels", where="[data]")


def completed(batch: Batch) -> Batch:
    """A batch with `frequency`, `dt` [B] and `material` [B], made from what it has where one is missing."""
    length = batch["current"].shape[-1]
    whole = dict(batch)
    for name in ("frequency", "dt"):
        if name in whole and whole[name].dim() > 1:
            whole[name] = whole[name].squeeze(-1)
    if "frequency" not in whole:
        whole["frequency"] = 1 / (whole["dt"] * length)
    if "dt" not in whole:
        whole["dt"] = 1 / (whole["frequency"] * length)
    if "material" not in whole:
        whole["material"] = torch.zeros_like(whole["dt"], dtype=torch.long)
    return whole


def times_and_materials(
    current: Tensor, dt: Tensor | None, frequency: Tensor | None, material: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`dt` and `material` [B] of losses and metrics, which take what the data have by name."""
    given = {"current": current, "dt": dt, "frequency": frequency, "material": material}
    whole = completed({name: value for name, value in given.items() if value is not None})
    return whole["dt"], whole["material"]


def materials(spec: DataSpec) -> int:
    """How many materials the data have; 1 where they name none."""
    return max(1, len(spec.fields["material"].names)) if "material" in spec.fields else 1


def amplitude(current: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half the peak-to-peak value, [n, L] -> [n] in ampere; a bias of the current does not change it."""
    return np.ptp(current, axis=-1) / 2


def describe(conditions: Sequence[str], length: int, materials: Sequence[str], *, position: bool) -> dict[str, Field]:
    """The fields of a batch, without the batch axis."""
    scalars = [name for name in SCALARS if name in conditions]
    fields = {"x": Field((1, length), "signal", "V"), "current": Field((1, length), "wave", "A")}
    if scalars:
        fields["meta"] = Field((len(scalars),), "scalar", names=tuple(SCALARS[name] for name in scalars))
    role: FieldRole = "category" if "material" in conditions else "extra"
    fields["material"] = Field((), role, names=tuple(materials))
    fields["dt"] = Field((), "extra", "s")
    fields["frequency"] = Field((), "extra", "Hz")
    if position:
        fields["x_position"] = Field((), "extra")
    return fields


def condition_batch(
    current: NDArray[np.float64],
    frequency: NDArray[np.float64],
    temperature: NDArray[np.float64] | None,
    scalars: Sequence[str],
) -> Batch:
    """`current`, `meta`, `dt` and `frequency` of n waveforms [n, L] (A), from hertz and degrees Celsius.

    `scalars` names the columns of `meta` as the field does; `temperature` may be None where they do not include it.
    """
    of = {
        "log_frequency": np.log(frequency),
        "temperature": temperature,
        "log_current_amplitude": np.log(amplitude(current)),
    }
    batch = {
        "current": torch.from_numpy(current.astype(np.float32))[:, None],
        "dt": torch.from_numpy((1 / (frequency * current.shape[-1])).astype(np.float32)),
        "frequency": torch.from_numpy(frequency.astype(np.float32)),
    }
    if scalars:
        known = [column for name in scalars if (column := of[name]) is not None]
        batch["meta"] = torch.from_numpy(np.stack(known, -1).astype(np.float32))
    return batch
