"""Checks of the arrays of currents and voltages; every fault is one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool_voltage.raw_files import Columns

SHORTEST = 8  # samples of a period: with fewer, a triangle looks like a sine
FREQUENCY_HZ = (1e3, 1e8)  # what a power converter's waveform can plausibly have
TEMPERATURE_C = (-80.0, 250.0)


def waves(columns: Columns, key: str, path: Path) -> NDArray[np.float64]:
    """`columns[key]` as waveforms [n, L]: numbers, finite, none of them constant; [L] is taken as one waveform."""
    array = _numbers(columns, key, path)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or 0 in array.shape:
        raise _wrong(path, f"`{key}` has the shape {columns[key].shape}, not [waveforms, samples]")
    if array.shape[1] < SHORTEST:
        raise _wrong(path, f"`{key}` has {array.shape[1]} samples a waveform; at least {SHORTEST} are needed")
    _refuse(
        ~np.isfinite(np.abs(array).max(1)), path, f"`{key}` holds NaN or inf", "repair or leave out these waveforms"
    )
    swing = np.ptp(array, axis=1)
    constant = swing <= 1e-6 * np.abs(array).max(1)
    _refuse(constant, path, f"`{key}` is constant", "leave out waveforms that carry no signal")
    return array


def per_row(columns: Columns, key: str, n: int, path: Path) -> NDArray[np.float64]:
    """`columns[key]` as one finite number for each of `n` waveforms; a single number serves for all."""
    array = _numbers(columns, key, path)
    if array.size == 1:
        array = np.full(n, array.reshape(()))
    if array.shape != (n,):
        raise _wrong(path, f"`{key}` has the shape {columns[key].shape}, but there are {n} waveforms")
    _refuse(~np.isfinite(array), path, f"`{key}` is NaN or inf", "give every waveform a number")
    return array


def frequencies(columns: Columns, n: int, path: Path, unit: str = "") -> NDArray[np.float64]:
    """`freq_hz` [n]; without a stated `unit` in a plausible range: kilohertz as hertz would scale slopes by 1000."""
    value, (low, high) = per_row(columns, "freq_hz", n, path), FREQUENCY_HZ
    _refuse(value <= 0, path, "`freq_hz` is not positive", "give the frequency in hertz")
    if unit:
        return value
    mega = value.max() < 10
    small = (
        f"is it in {'MHz' if mega else 'kHz'}? -s data.frequency_unit={'MHz' if mega else 'kHz'};"
        " if it is in hertz, -s data.frequency_unit=Hz"
    )
    _refuse(value < low, path, f"`freq_hz` is below {low:g} Hz", small, value)
    _refuse(value > high, path, f"`freq_hz` is above {high:g} Hz", "give the frequency in hertz", value)
    return value


def temperatures(columns: Columns, n: int, path: Path) -> NDArray[np.float64]:
    """`temp_c` [n], in a plausible range; kelvin is the usual mistake."""
    value, (low, high) = per_row(columns, "temp_c", n, path), TEMPERATURE_C
    hint = "is it in kelvin? -s data.temperature_unit=K"
    _refuse(value > high, path, f"`temp_c` is above {high:g} C", hint, value)
    _refuse(value < low, path, f"`temp_c` is below {low:g} C", "give the temperature in degrees Celsius", value)
    return value


def booleans(columns: Columns, key: str, n: int, path: Path) -> NDArray[np.bool_]:
    """`columns[key]` as a mask [n]: booleans, or the numbers 0 and 1, as tables have them."""
    array = columns[key]
    if array.dtype.kind in "fiu" and np.isin(array, (0, 1)).all():
        array = array.astype(bool)
    elif array.dtype.kind in "US" and set(np.char.lower(array.astype(str)).tolist()) <= {"true", "false"}:
        array = np.char.lower(array.astype(str)) == "true"
    if array.shape != (n,) or array.dtype != np.bool_:
        raise VqtoolError(f"`{key}` must be {n} booleans, one a waveform", hint="true where held out", where=str(path))
    return array


def _numbers(columns: Columns, key: str, path: Path) -> NDArray[np.float64]:
    if columns[key].dtype.kind not in "fiu":
        raise _wrong(path, f"`{key}` holds {columns[key].dtype}, not real numbers")
    return columns[key].astype(np.float64)


def _refuse(bad: NDArray[np.bool_], path: Path, what: str, hint: str, value: NDArray[Any] | None = None) -> None:
    """Raise the error for the rows marked in `bad`, naming how many and the first."""
    if bad.any():
        first = int(bad.argmax())
        shown = "" if value is None else f" ({value[first]:g})"
        message = f"{what} in {int(bad.sum())} of {len(bad)} waveforms, the first at index {first}{shown}"
        raise VqtoolError(message, hint=hint, where=str(path))


def _wrong(path: Path, message: str) -> VqtoolError:
    return VqtoolError(message, hint="waveforms are rows, samples of one period are columns", where=str(path))
