"""A user's own currents, of any length and sampling rate, as a batch; and voltages back on the user's own samples."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import DataSpec, Files, Piece
from vqtool.errors import VqtoolError
from vqtool.files import save_npz
from vqtool_voltage import checks, columns, periods, records
from vqtool_voltage.fields import amplitude, condition_batch
from vqtool_voltage.raw_files import Columns

Array = NDArray[np.float64]
CUT_NOTED = 0.01  # rms of what is above the trained harmonics / rms of the current
BIAS_NOTED = 0.2  # mean of the current / its amplitude; the bundled measurements have 0.18 at most


class WaveformFiles(Files):
    """Files of currents and voltages: .npz, .csv and .mat are read, .npz is written."""

    def __init__(
        self, spec: DataSpec, options: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None
    ) -> None:
        asked = asked or {}
        for name in asked.keys() - set(columns.ASKED):
            raise VqtoolError(f"only {columns.listed(columns.ASKED)} are options of these files", where=f"data.{name}")
        super().__init__(spec)
        self.options = options or {}
        self.reading = columns.Reading.of(self.options, asked)

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """Read `i_p` [n, S] or [S] (A), `freq_hz`, `temp_c`, `material` (names or codes), and `v` (V) to encode.

        Usual other names are recognised (see `columns`).

        A row is one period of `freq_hz`, or as many whole periods as `dt` (s), `sample_rate` (Hz) or `periods` say;
        several are averaged. Any number of samples is resampled by its harmonics to the trained length, and the current
        is limited to the harmonics that the training data has. The notes say what was done, and what lies outside the
        trained ranges.

        Raises:
            VqtoolError: missing keys, NaN or inf, constant or empty waveforms, implausible units, unknown materials,
                records that do not hold whole periods or whose periods differ.
        """
        spec = self.spec
        scalars = _scalars(spec)
        notes: list[str] = []
        keys = ("i_p", *(() if condition else ("v",)))
        needed = [*keys, *(["temp_c"] if "temperature" in scalars else [])]
        found = columns.load(path, needed, self.reading, notes, keep=("material_code",))
        single = found["i_p"].ndim == 1
        found = records.with_frequency(records.arranged(found, path, notes), path, notes)
        recorded = {name: checks.waves(found, name, path) for name in keys}
        n, samples = recorded["i_p"].shape
        if not condition and recorded["v"].shape != (n, samples):
            raise VqtoolError(
                f"`v` has the shape {recorded['v'].shape} and `i_p` {(n, samples)}",
                hint="sample both at the same instants",
                where=str(path),
            )
        frequency = checks.frequencies(found, n, path, self.reading.unit("freq_hz"))
        temperature = checks.temperatures(found, n, path) if "temperature" in scalars else None
        count = records.counted(found, recorded["i_p"], frequency, path, notes)
        one = {name: records.one_period(x, count, spec.length, name, path, notes) for name, x in recorded.items()}
        current = _limited(one["i_p"], spec, notes)
        self._ask_for_the_unit(amplitude(current), path)
        batch = condition_batch(current, frequency, temperature, scalars)
        if not condition:
            batch["x"] = torch.from_numpy((one["v"] * self._polarity()).astype(np.float32))[:, None]
        if "x_position" in spec.fields:
            batch["x_position"] = _position(found, n, path)
        material = _material_index(found, spec, n, path)
        if material is not None:
            batch["material"] = torch.from_numpy(material)
        _note_ranges(notes, spec, frequency, temperature, amplitude(current))
        _note_bias(notes, current)
        single = single and n == 1
        yield Piece(batch, {"samples": samples, "periods": count.tolist(), "single": single}, notes)

    def _polarity(self) -> int:
        """-1 where the training data, and so the files of a user, follow v = +M dI/dt."""
        return -1 if self.options.get("polarity") == "passive" else 1

    def _ask_for_the_unit(self, size: Array, path: Path) -> None:
        """Refuse currents far above the trained ones that would be within them in milliampere."""
        if self.reading.given.get("i_p") or "current_amplitude_a" not in self.spec.metadata:
            return
        low, high = self.spec.metadata["current_amplitude_a"]
        typical = float(np.median(size))
        if typical > 20 * high and low / 2 <= typical / 1000 <= 2 * high:
            raise VqtoolError(
                f"the current's amplitude is {typical:.4g} A, and the model was trained on {low:.4g} to {high:.4g} A:"
                " is it in mA?",
                hint="-s data.current_unit=mA if it is; -s data.current_unit=A if it is in ampere",
                where=str(path),
            )

    def save(self, path: Path, pieces: Iterator[Piece]) -> list[Path]:
        """Write `v` [n, S] (V; [n, samples, S] for several a current) on the samples of the user's `i_p`.

        Beside it `i_p` as the model read it, on the same samples, `freq_hz`, and `temp_c` and `material` where known.
        """
        whole = Piece.joined(pieces)
        batch, metadata = whole.batch, whole.metadata
        written = {
            "v": _unfolded(batch["x"], metadata) * self._polarity(),
            "i_p": _unfolded(batch["current"], metadata),
            "freq_hz": batch["frequency"].double().cpu().numpy(),
        }
        scalars = _scalars(self.spec)
        if "temperature" in scalars:
            written["temp_c"] = batch["meta"][:, scalars.index("temperature")].double().cpu().numpy()
        if "material" in batch:
            written["material"] = np.array(self.spec.fields["material"].names)[batch["material"].cpu().numpy()]
        save_npz(path, {name: column[0] if metadata["single"] else column for name, column in written.items()})
        return [path]


def _scalars(spec: DataSpec) -> tuple[str, ...]:
    """The names of the scalar conditions."""
    return spec.fields["meta"].names if "meta" in spec.fields else ()


def _unfolded(signal: Tensor, metadata: Mapping[str, Any]) -> Array:
    """[n, ..., 1, L] of one period to the user's samples, row by row: each may hold another number of periods."""
    x = signal.detach().double().cpu().numpy().squeeze(-2)
    rows = [periods.unfold(row, k, metadata["samples"]) for row, k in zip(x, metadata["periods"], strict=True)]
    return np.stack(rows).astype(np.float32)


def _limited(current: Array, spec: DataSpec, notes: list[str]) -> Array:
    """The current without harmonics that no training current has: the model has never seen any."""
    harmonics = spec.metadata.get("current_harmonics")
    if harmonics is None or harmonics >= spec.length // 2:
        return current
    kept = periods.limit(current, harmonics)
    centred = current - current.mean(-1, keepdims=True)
    cut = np.sqrt(((current - kept) ** 2).sum(-1) / (centred**2).sum(-1))
    if cut.max() > CUT_NOTED:
        notes.append(
            f"the current was limited to {harmonics} harmonics, as the training data is; that removed up to"
            f" {cut.max():.1%} of its rms"
        )
    return kept


def _position(found: Columns, n: int, path: Path) -> Tensor:
    """The positions [n]; 1 where the file has none."""
    if "x_position" not in found:
        return torch.ones(n)
    return torch.from_numpy(checks.per_row(found, "x_position", n, path).astype(np.float32))


def _material_index(found: Columns, spec: DataSpec, n: int, path: Path) -> NDArray[np.int64] | None:
    """The index [n] of each row's material, by name or code; None where nobody needs it and the file has none."""
    field = spec.fields["material"]
    names = field.names
    codes = spec.metadata.get("material_codes", names)
    known = {str(code).lower(): k for k, code in enumerate(codes)} | {name.lower(): k for k, name in enumerate(names)}
    shown = ", ".join(f"{name} ({code})" if code != name else name for name, code in zip(names, codes, strict=True))
    key = next((key for key in ("material", "material_code") if key in found), None)
    if key is None:
        if field.role != "category":
            return None
        if len(names) == 1:
            return np.zeros(n, dtype=np.int64)
        raise VqtoolError(f"`{path.name}` has no `material`", hint=f"add it; the model knows {shown}", where=str(path))
    asked = np.asarray(found[key]).astype(str).reshape(-1)
    if asked.size not in (1, n):
        raise VqtoolError(
            f"`{key}` names {asked.size} materials for {n} waveforms",
            hint="give one for all, or one each",
            where=str(path),
        )
    unknown = sorted({name for name in asked.tolist() if name.strip().lower() not in known})
    if unknown:
        close = difflib.get_close_matches(unknown[0].strip().lower(), known, 1)
        mean = f"did you mean `{names[known[close[0]]]}`? " if close else ""
        raise VqtoolError(
            f"unknown material {', '.join(f'`{name}`' for name in unknown[:5])}",
            hint=f"{mean}the model knows {shown}",
            where=str(path),
        )
    return np.broadcast_to(np.array([known[name.strip().lower()] for name in asked.tolist()]), (n,)).copy()


def _note_ranges(notes: list[str], spec: DataSpec, frequency: Array, temperature: Array | None, current: Array) -> None:
    """Note where a model will have to extrapolate."""
    asked = (
        ("frequency_hz", "frequency", "Hz", frequency),
        ("temperature_c", "temperature", "C", temperature),
        ("current_amplitude_a", "amplitude of the current", "A", current),
    )
    for key, name, unit, value in asked:
        if value is None or key not in spec.metadata:
            continue
        low, high = spec.metadata[key]
        outside = (value < low * 0.999) | (value > high * 1.001)
        if outside.any():
            first = int(outside.argmax())
            notes.append(
                f"{name}: {int(outside.sum())} of {len(value)} rows lie outside the trained {low:.4g} to {high:.4g}"
                f" {unit}, the first at index {first} ({value[first]:.4g} {unit}); expect larger errors"
            )


def _note_bias(notes: list[str], current: Array) -> None:
    """Note where a current has a mean: a biased core responds differently, and no model knows of a bias."""
    share = np.abs(current.mean(-1)) / amplitude(current)
    biased = share > BIAS_NOTED
    if biased.any():
        worst = int(share.argmax())
        notes.append(
            f"mean of the current: {int(biased.sum())} of {len(share)} rows have one above {BIAS_NOTED:.0%} of their"
            f" amplitude, the largest at index {worst} ({share[worst]:.0%}); nothing of a bias is learnt, and the norm"
            " `impedance` ignores it: expect larger errors"
        )
