"""The fields of a batch of currents and voltages: what each is called, its unit, and what may be a condition."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vqtool.api import Batch, Field
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
