"""Measured currents and voltages of ferrite cores, one period each, in the layout of the MagNet sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_doc import Doc
from annotated_types import Interval
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import Batch, Data, DataSpec, Rows, TensorRows
from vqtool.errors import VqtoolError
from vqtool_voltage import npz, periods
from vqtool_voltage.fields import CONDITIONS, amplitude, check_conditions, condition_batch, describe
from vqtool_voltage.physics import band, derivative, pooled_inductance
from vqtool_voltage.user_file import WaveformFiles

Split = Literal[
    "test_random", "test_freq_gt_250k", "test_temp_90c", "test_shape", "random", "freq_gt_250k", "temp_90c", "shape"
]


class Magnet(Data):
    """Pairs of current and voltage from an npz file with `v` [n, L] (V), `i_p` [n, L] (A), `freq_hz`, `temp_c` and
    `material` [n], one boolean mask [n] for every official test split, and `phase_roll` [n] (samples).

    The rows of the mask that `split` names are held out under its name; training and validation see the rest only. In
    the `random-phase` track a training batch is rolled at random and every other row by a fixed number of samples.
    """

    files = WaveformFiles

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("npz file with the waveforms")],
        split: Annotated[Split, Doc("which official test mask of the file is held out")] = "test_random",
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
    ) -> None:
        check_conditions(conditions)
        self.path, self.track, self.flip = path, track, flip
        mask = split if split.startswith("test_") else f"test_{split}"
        self.splits = ("train", "valid", mask)
        columns = self._load(mask)
        voltage, current = npz.waves(columns, "v", path), npz.waves(columns, "i_p", path)
        if voltage.shape != current.shape:
            raise VqtoolError(
                f"`v` has the shape {voltage.shape} and `i_p` {current.shape}; they must be sampled alike",
                hint="sample both at the same instants",
                where=str(path),
            )
        n, length = voltage.shape
        frequency, temperature = npz.frequencies(columns, n, path), npz.temperatures(columns, n, path)
        materials, codes, index = _materials(columns, n, path)
        rows, rolls = self._divide(columns, mask, n, valid_share, valid_seed)
        fields = describe(conditions, length, materials, position="x_position" in columns)
        batch = condition_batch(current, frequency, temperature, fields["meta"].names if "meta" in fields else ())
        batch["x"] = torch.from_numpy(voltage.astype(np.float32))[:, None]
        batch["material"] = torch.from_numpy(index)
        if "x_position" in columns:
            batch["x_position"] = torch.from_numpy(npz.per_row(columns, "x_position", n, path).astype(np.float32))
        self._rows = {name: _rolled({k: t[at] for k, t in batch.items()}, rolls[name]) for name, at in rows.items()}
        train = rows["train"].numpy()
        about = {
            "materials": list(materials),
            "material_codes": list(codes),
            "held_out": mask,
            "track": track,
            "frequency_hz": _range(frequency[train]),
            "temperature_c": _range(temperature[train]),
            "current_amplitude_a": _range(amplitude(current[train])),
            "current_harmonics": periods.highest_harmonic(current[train]),
            "inductance_h": self._inductances(self._rows["train"].columns, len(materials)),
        }
        self.spec = DataSpec(fields, periodic=True, metadata=about)

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

    def _load(self, mask: str) -> npz.Columns:
        needed = ["v", "i_p", "freq_hz", "temp_c", "material", mask]
        if self.track == "random-phase":
            needed.append("phase_roll")
        return npz.load(self.path, needed, ("material_code", "x_position"))

    def _divide(
        self, columns: npz.Columns, mask: str, n: int, share: float, seed: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Row numbers and fixed rolls of each split; the choice depends on `seed`, mask and number of rows only."""
        test = columns[mask]
        if test.shape != (n,) or test.dtype != np.bool_:
            raise VqtoolError(
                f"`{mask}` must be {n} booleans, one a waveform", hint="true where held out", where=str(self.path)
            )
        rng = np.random.default_rng(seed)
        rest = rng.permutation(np.flatnonzero(~test))
        held = max(1, round(share * len(rest)))
        if not test.any() or held >= len(rest):
            raise VqtoolError(
                f"`{mask}` holds out {int(test.sum())} of {n} waveforms; training, validation and test each need some",
                hint="choose another split or valid_share",
                where=str(self.path),
            )
        parts = {"train": np.sort(rest[held:]), "valid": np.sort(rest[:held]), mask: np.flatnonzero(test)}
        rows = {name: torch.from_numpy(at) for name, at in parts.items()}
        rolls = {name: torch.zeros(len(at), dtype=torch.long) for name, at in parts.items()}
        if self.track == "random-phase":
            length = columns["v"].shape[-1]
            rolls["valid"] = torch.from_numpy(rng.integers(length, size=held))
            rolls[mask] = torch.from_numpy(npz.per_row(columns, "phase_roll", n, self.path).astype(np.int64))[
                rows[mask]
            ]
        return rows, rolls

    def _inductances(self, train: Batch, materials: int) -> list[float]:
        """M of each material in henry, of the fundamental, over the training rows; refuses the other polarity."""
        v = band(train["x"].double(), 1)
        slope = band(derivative(train["current"].double(), train["dt"].double(), "spectral"), 1)
        if "x_position" in train:
            slope = slope * train["x_position"].double()[:, None, None]
        found = pooled_inductance(v, slope, train["material"], materials)
        if bool((found <= 0).all()):
            raise VqtoolError(
                "voltage and current have opposite polarity: v = -M dI/dt fits with a negative M only",
                hint="negate `v` in the file",
                where=str(self.path),
            )
        return [float(m) for m in found]


def _materials(columns: npz.Columns, n: int, path: Path) -> tuple[tuple[str, ...], tuple[str, ...], NDArray[np.int64]]:
    """Names of the materials, their codes (the names again where the file has none), and each row's index."""
    for key in ("material", "material_code"):
        if key in columns and columns[key].shape != (n,):
            raise VqtoolError(
                f"`{key}` has the shape {columns[key].shape}, but there are {n} waveforms",
                hint="name the material of every waveform",
                where=str(path),
            )
    names, first, index = np.unique(columns["material"].astype(str), return_index=True, return_inverse=True)
    codes = columns["material_code"].astype(str)[first] if "material_code" in columns else names
    return tuple(map(str, names)), tuple(map(str, codes)), index.astype(np.int64)


def _rolled_batch(batch: Batch, shift: Tensor) -> Batch:
    """A new batch with `x` and `current` rolled by `shift` [B] samples, like torch.roll row by row."""
    length = batch["x"].shape[-1]
    at = (torch.arange(length, device=shift.device) - shift[:, None]).remainder(length)[:, None]
    return batch | {name: batch[name].gather(-1, at.expand_as(batch[name])) for name in ("x", "current")}


def _rolled(batch: Batch, shift: Tensor) -> TensorRows:
    return TensorRows(_rolled_batch(batch, shift))


def _range(value: NDArray[np.float64]) -> list[float]:
    return [float(value.min()), float(value.max())]
