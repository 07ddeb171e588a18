"""A file of voltages and currents to train on, one period a row, and which rows are held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool_voltage import checks, columns, records
from vqtool_voltage.raw_files import Columns

Array = NDArray[np.float64]
MASKS = ("test_random", "test_freq_gt_250k", "test_temp_90c", "test_shape", "test_frequency", "test_temperature")
FEWEST = 5  # waveforms: training, validation and test need some
ONE = "core"  # what the material is called where the file names none


@dataclass(frozen=True, slots=True)
class Waveforms:
    """`voltage` and `current` [n, L] in V and A, and what is known of each row."""

    voltage: Array
    current: Array
    frequency: Array
    temperature: Array | None
    materials: tuple[str, ...]
    codes: tuple[str, ...]
    material: NDArray[np.int64]  # [n], an index into `materials`
    position: Array | None
    masks: Columns  # those the file has, unchecked
    roll: Array | None  # samples that a held-out row is rolled by

    @property
    def length(self) -> int:
        """Samples of a period."""
        return self.voltage.shape[1]


def read_waveforms(path: Path, reading: columns.Reading, length: int | None, notes: list[str]) -> Waveforms:
    """Everything in a file, resampled to `length` samples a period where it has another number.

    Raises:
        VqtoolError: something is missing, of the wrong shape, or cannot be what it is taken for.
    """
    found = columns.load(path, ("v", "i_p"), reading, notes, keep=("material_code", "phase_roll", *MASKS))
    found = records.with_frequency(records.arranged(found, path, notes), path, notes)
    voltage, current = checks.waves(found, "v", path), checks.waves(found, "i_p", path)
    if voltage.shape != current.shape:
        raise VqtoolError(
            f"`v` has the shape {voltage.shape} and `i_p` {current.shape}; they must be sampled alike",
            hint="sample both at the same instants",
            where=str(path),
        )
    n, samples = voltage.shape
    if n < FEWEST:
        raise VqtoolError(
            f"`{path.name}` has {n} waveform{'s' * (n > 1)}; training, validation and test need {FEWEST} at least",
            hint="one waveform a row; in a table of one sample a line, a column numbers them:"
            " -s data.names.waveform=COLUMN",
            where=str(path),
        )
    frequency = checks.frequencies(found, n, path, reading.unit("freq_hz"))
    temperature = checks.temperatures(found, n, path) if "temp_c" in found else None
    materials, codes, index = _materials(found, n, path, notes)
    position = checks.per_row(found, "x_position", n, path) if "x_position" in found else None
    roll = checks.per_row(found, "phase_roll", n, path) if "phase_roll" in found else None
    count = _counts(found, current, frequency, path, notes)
    wanted = length or int(np.rint(samples / count).max())
    if (count > 1).any() or wanted != samples:
        voltage, current = (
            records.one_period(x, count, wanted, name, path, notes) for name, x in (("v", voltage), ("i_p", current))
        )
        roll = None if roll is None else np.rint(roll * wanted * count / samples)
    masks = {name: found[name] for name in MASKS if name in found}
    return Waveforms(voltage, current, frequency, temperature, materials, codes, index, position, masks, roll)


def _counts(found: Columns, current: Array, frequency: Array, path: Path, notes: list[str]) -> NDArray[np.int64]:
    """Periods of each row; rows of a file that gives no times are taken as one period without a note."""
    unsaid: list[str] = []
    count = records.counted(found, current, frequency, path, unsaid)
    notes += unsaid if any(key in found for key in records.TIMES) else []
    return count


def chosen(waves: Waveforms, mask: str, share: float, path: Path, notes: list[str]) -> NDArray[np.bool_]:
    """The rows that are held out where the file has no mask of this name; what was done is noted."""
    n = len(waves.frequency)
    if mask == "test_random":
        test = np.zeros(n, dtype=bool)
        test[np.random.default_rng(0).permutation(n)[: max(1, round(share * n))]] = True
        how = "at random"
    elif mask == "test_freq_gt_250k":
        test, how = waves.frequency > 250e3, "above 250 kHz"
    elif mask == "test_frequency":
        test, how = _highest(waves.frequency, share), "of the highest frequencies"
    elif mask in ("test_temp_90c", "test_temperature") and waves.temperature is not None:
        by_share = mask == "test_temperature"
        test = _highest(waves.temperature, share) if by_share else waves.temperature >= 89.5
        how = "of the highest temperatures" if by_share else "of 90 C and above"
    else:
        missing = "`temp_c`" if mask in ("test_temp_90c", "test_temperature") else f"`{mask}`"
        raise VqtoolError(
            f"`{path.name}` has no {missing}, so it cannot be split by it",
            hint="-s data.split=random, or frequency",
            where=str(path),
        )
    if not test.any() or test.all():
        which = "frequency" if "freq" in mask else "temperature"
        raise VqtoolError(
            f"`{path.name}` has {int(test.sum())} of {n} waveforms {how}: nothing to hold out, or nothing to train on",
            hint="-s data.split=random"
            + (f", or {which}" if mask not in ("test_frequency", "test_temperature") else ""),
            where=str(path),
        )
    notes.append(f"{path.name} has no `{mask}`: {int(test.sum())} of {n} waveforms {how} are held out")
    return test


def _highest(value: Array, share: float) -> NDArray[np.bool_]:
    """The rows of the highest values, whole values at a time: those whose share is nearest to `share`."""
    levels = np.unique(value)[1:]
    held = [abs(float((value >= level).mean()) - share) for level in levels]
    return value >= levels[int(np.argmin(held))] if len(levels) else np.zeros(len(value), dtype=bool)


def _materials(
    found: Columns, n: int, path: Path, notes: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...], NDArray[np.int64]]:
    """Names of the materials, their codes (the names again where the file has none), and each row's index."""
    for key in ("material", "material_code"):
        if key in found and found[key].size == 1:
            found = found | {key: np.broadcast_to(found[key].reshape(()), (n,))}
        if key in found and found[key].shape != (n,):
            raise VqtoolError(
                f"`{key}` has the shape {found[key].shape}, but there are {n} waveforms",
                hint="name the material of every waveform",
                where=str(path),
            )
    if "material" not in found:
        if "material_code" not in found:
            notes.append("the file names no material: all waveforms are taken as of one")
        found = found | {"material": found.get("material_code", np.full(n, ONE))}
    names, first, index = np.unique(found["material"].astype(str), return_index=True, return_inverse=True)
    codes = found["material_code"].astype(str)[first] if "material_code" in found else names
    return tuple(map(str, names)), tuple(map(str, codes)), index.astype(np.int64)
