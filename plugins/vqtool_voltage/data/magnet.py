"""Measured currents and voltages of ferrite cores, one period each, from the MagNet sample or a file of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_doc import Doc
from annotated_types import Ge, Interval
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import Batch, Data, DataSpec, Rows, TensorRows
from vqtool.errors import VqtoolError
from vqtool_voltage import checks, columns, periods
from vqtool_voltage.fields import CONDITIONS, amplitude, check_conditions, condition_batch, describe
from vqtool_voltage.physics import band, derivative, pooled_inductance
from vqtool_voltage.user_file import WaveformFiles
from vqtool_voltage.waveforms import Waveforms, chosen, read_waveforms

LARGE_CURRENT, SMALL_INDUCTANCE = 5.0, 1e-6  # A and H: beyond both, currents are probably in milliampere

Split = Literal[
    "test_random", "test_freq_gt_250k", "test_temp_90c", "test_shape", "random", "freq_gt_250k", "temp_90c", "shape",
    "frequency", "temperature",
]  # fmt: skip


class Magnet(Data):
    """Pairs of voltage and current, a period or more each: an .npz, .csv or .mat file with `v` [n, L] (V) and `i_p`
    [n, L] (A), `freq_hz` (or `dt`, `sample_rate`, `time`), and where known `temp_c`, `material` and `x_position` [n].

    Other usual names and units in headers are recognised and reported; `names` and the units settle the rest. Text
    tables hold a waveform a line (v_0, v_1, ..., i_0, i_1, ...) or a sample a line (with a column that numbers the
    waveforms, or a time that begins again).

    The rows of the mask that `split` names are held out under its name: of the file's own column where it has one, else
    chosen by `test_share`, 250 kHz or 90 C. Training and validation see the rest only. In the `random-phase` track a
    training batch is rolled at random and every other row by a fixed number of samples (`phase_roll`, where the file
    has it).
    """

    files = WaveformFiles

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("file with the waveforms: .npz, .csv, .tsv, .txt or .mat")],
        split: Annotated[
            Split, Doc("what is held out: the file's mask of this name, or random rows, high frequencies, hot rows")
        ] = "test_random",
        test_share: Annotated[
            float, Interval(gt=0, lt=1), Doc("share of the rows held out where the file has no mask for it")
        ] = 0.2,
        valid_share: Annotated[
            float, Interval(gt=0, lt=1), Doc("share of the rows outside the test mask kept for validation")
        ] = 0.1,
        valid_seed: Annotated[int, Doc("seed of the choice and of the phases of the validation rows")] = 0,
        track: Annotated[
            Literal["random-phase", "stored"],
            Doc("where a period starts: anywhere, or at the phase in which the file stores it"),
        ] = "random-phase",
        conditions: Annotated[
            tuple[str, ...], Doc("which of freq_hz, temp_c, i_pk_a, material a model may read beside the current")
        ] = CONDITIONS,
        flip: Annotated[
            float, Interval(ge=0, le=1), Doc("probability of negating a training pair: the winding turned round")
        ] = 0.0,
        length: Annotated[
            Annotated[int, Ge(8)] | None, Doc("samples that a period is resampled to; `none`: as many as the file has")
        ] = None,
        names: Annotated[
            dict[str, str] | None, Doc("arrays or columns with unusual names: voltage, current, frequency, ...")
        ] = None,
        voltage_unit: Annotated[Literal["V", "mV", "kV"] | None, Doc("unit of the voltage; `none`: V")] = None,
        current_unit: Annotated[Literal["A", "mA", "uA", "kA"] | None, Doc("unit of the current; `none`: A")] = None,
        frequency_unit: Annotated[Literal["Hz", "kHz", "MHz"] | None, Doc("unit of the frequency; `none`: Hz")] = None,
        temperature_unit: Annotated[Literal["C", "K"] | None, Doc("unit of the temperature; `none`: C")] = None,
        polarity: Annotated[
            Literal["generator", "passive"], Doc("v = -M dI/dt, or v = +M dI/dt: then it is negated inside the model")
        ] = "generator",
    ) -> None:
        check_conditions(conditions)
        self.path, self.track, self.flip, self.polarity = path, track, flip, polarity
        mask = split if split.startswith("test_") else f"test_{split}"
        self.splits = ("train", "valid", mask)
        units = {"voltage_unit": voltage_unit, "current_unit": current_unit, "frequency_unit": frequency_unit,
                 "temperature_unit": temperature_unit}  # fmt: skip
        reading = columns.Reading.of({"names": names, **units})
        notes: list[str] = []
        waves = read_waveforms(path, reading, length, notes)
        shown = _known_conditions(conditions, waves, notes)
        rows, rolls = self._divide(waves, mask, test_share, valid_share, valid_seed, notes)
        fields = describe(shown, waves.length, waves.materials, position=waves.position is not None)
        batch = _batch(waves, fields["meta"].names if "meta" in fields else (), -1 if polarity == "passive" else 1)
        self._rows = {name: _rolled({k: t[at] for k, t in batch.items()}, rolls[name]) for name, at in rows.items()}
        train = rows["train"].numpy()
        about: dict[str, Any] = {
            "materials": list(waves.materials),
            "material_codes": list(waves.codes),
            "held_out": mask,
            "track": track,
            "frequency_hz": _range(waves.frequency[train]),
            "current_amplitude_a": _range(amplitude(waves.current[train])),
            "current_harmonics": periods.highest_harmonic(waves.current[train]),
            "inductance_h": self._inductances(self._rows["train"].columns, len(waves.materials), current_unit is None),
        }
        if waves.temperature is not None:
            about["temperature_c"] = _range(waves.temperature[train])
        self.spec = DataSpec(fields, periodic=True, metadata=about)
        self.notes = tuple(notes)

    def rows(self, split: str) -> Rows:
        """The rows of `train`, `valid` or the held-out mask; the last two in phases that never change."""
        if split not in self._rows:
            known = ", ".join(f"`{name}`" for name in self.splits)
            raise VqtoolError(f"there is no split `{split}`; there are {known}", where="[data] split")
        return self._rows[split]

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Every pair rolled by its own random number of samples (random-phase track), and negated at times (`flip`)."""
        x = batch["x"]
        n, length = x.shape[0], x.shape[-1]
        shift = torch.randint(length, (n,), generator=generator, device=generator.device).to(x.device)
        turned = torch.rand(n, generator=generator, device=generator.device).to(x.device) < self.flip
        if self.track == "random-phase":
            batch = _rolled_batch(batch, shift)
        if self.flip > 0:
            sign = (1 - 2 * turned.to(x.dtype))[:, None, None]
            batch = batch | {"x": batch["x"] * sign, "current": batch["current"] * sign}
        return batch

    def _divide(
        self, waves: Waveforms, mask: str, test_share: float, share: float, seed: int, notes: list[str]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Row numbers and fixed rolls of each split; the choice depends on `seed`, mask and number of rows only."""
        n = len(waves.current)
        if mask in waves.masks:
            test = checks.booleans(waves.masks, mask, n, self.path)
        else:
            test = chosen(waves, mask, test_share, self.path, notes)
        rng = np.random.default_rng(seed)
        rest = rng.permutation(np.flatnonzero(~test))
        held = max(1, round(share * len(rest)))
        if not test.any() or held >= len(rest):
            raise VqtoolError(
                f"`{mask}` holds out {int(test.sum())} of {n} waveforms; training, validation and test each need some",
                hint="choose another split, as -s data.split=random, or valid_share",
                where=str(self.path),
            )
        parts = {"train": np.sort(rest[held:]), "valid": np.sort(rest[:held]), mask: np.flatnonzero(test)}
        rows = {name: torch.from_numpy(at) for name, at in parts.items()}
        rolls = {name: torch.zeros(len(at), dtype=torch.long) for name, at in parts.items()}
        if self.track == "random-phase":
            rolls["valid"] = torch.from_numpy(rng.integers(waves.length, size=held))
            roll = waves.roll if waves.roll is not None else rng.integers(waves.length, size=n)
            rolls[mask] = torch.from_numpy(roll.astype(np.int64))[rows[mask]]
        return rows, rolls

    def _inductances(self, train: Batch, materials: int, ask: bool) -> list[float]:
        """M of each material in henry, of the fundamental, over the training rows.

        Refuses the other polarity and, with `ask`, currents that seem to be in milliampere.
        """
        v = band(train["x"].double(), 1)
        slope = band(derivative(train["current"].double(), train["dt"].double(), "spectral"), 1)
        if "x_position" in train:
            slope = slope * train["x_position"].double()[:, None, None]
        found = pooled_inductance(v, slope, train["material"], materials)
        if bool((found <= 0).all()):
            raise VqtoolError(
                "voltage and current have opposite polarity: v = -M dI/dt fits with a negative M only",
                hint="-s data.polarity=" + ("generator" if self.polarity == "passive" else "passive"),
                where=str(self.path),
            )
        typical = float(train["current"].abs().amax(-1).median())
        if ask and typical > LARGE_CURRENT and float(found.max()) < SMALL_INDUCTANCE:
            raise VqtoolError(
                f"the currents reach {typical:.4g} A, and the inductance that fits is {float(found.max()):.2g} H: are"
                " they in mA?",
                hint="-s data.current_unit=mA if they are; -s data.current_unit=A if they are in ampere",
                where=str(self.path),
            )
        return [float(m) for m in found]


def _known_conditions(conditions: tuple[str, ...], waves: Waveforms, notes: list[str]) -> tuple[str, ...]:
    """The conditions that the file has; without its temperature a model reads the others."""
    if "temp_c" in conditions and waves.temperature is None:
        notes.append("the file has no temperature: the model does not read one")
        return tuple(name for name in conditions if name != "temp_c")
    return conditions


def _rolled_batch(batch: Batch, shift: Tensor) -> Batch:
    """A new batch with `x` and `current` rolled by `shift` [B] samples, like torch.roll row by row."""
    length = batch["x"].shape[-1]
    at = (torch.arange(length, device=shift.device) - shift[:, None]).remainder(length)[:, None]
    return batch | {name: batch[name].gather(-1, at.expand_as(batch[name])) for name in ("x", "current")}


def _batch(waves: Waveforms, meta: Sequence[str], sign: int) -> Batch:
    """All rows as one batch: conditions, materials, and the voltage `x` [n, 1, L] times `sign`."""
    batch = condition_batch(waves.current, waves.frequency, waves.temperature, meta)
    batch["x"] = torch.from_numpy((sign * waves.voltage).astype(np.float32))[:, None]
    batch["material"] = torch.from_numpy(waves.material)
    if waves.position is not None:
        batch["x_position"] = torch.from_numpy(waves.position.astype(np.float32))
    return batch


def _rolled(batch: Batch, shift: Tensor) -> TensorRows:
    return TensorRows(_rolled_batch(batch, shift))


def _range(value: NDArray[np.float64]) -> list[float]:
    return [float(value.min()), float(value.max())]
