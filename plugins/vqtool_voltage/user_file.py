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
from vqtool_voltage import npz, periods
from vqtool_voltage.fields import amplitude, condition_batch

Array = NDArray[np.float64]
TIMES = ("dt", "sample_rate", "periods")
UNLIKE_NOTED, UNLIKE_REFUSED = 0.01, 0.25  # rms of what differs between the periods of a record / rms of the record
CUT_NOTED = 0.01  # rms of what is above the trained harmonics / rms of the current
BIAS_NOTED = 0.2  # mean of the current / its amplitude; the bundled measurements have 0.18 at most


class WaveformFiles(Files):
    """`.npz` files of currents and voltages."""

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """Read `i_p` [n, S] or [S] (A), `freq_hz`, `temp_c`, `material` (names or codes), and `v` (V) to encode.

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
        needed = ["i_p", "freq_hz", *(() if condition else ("v",))]
        if "temperature" in scalars:
            needed.append("temp_c")
        columns = npz.load(path, needed, ("material", "material_code", *TIMES))
        recorded = {name: npz.waves(columns, name, path) for name in ("i_p", *(() if condition else ("v",)))}
        n, samples = recorded["i_p"].shape
        if not condition and recorded["v"].shape != (n, samples):
            raise VqtoolError(
                f"`v` has the shape {recorded['v'].shape} and `i_p` {(n, samples)}",
                hint="sample both at the same instants",
                where=str(path),
            )
        frequency = npz.frequencies(columns, n, path)
        temperature = npz.temperatures(columns, n, path) if "temp_c" in needed else None
        notes: list[str] = []
        count = _periods(columns, recorded["i_p"], frequency, path, notes)
        one = {name: _one_period(x, count, spec.length, name, path, notes) for name, x in recorded.items()}
        current = _limited(one["i_p"], spec, notes)
        batch = condition_batch(current, frequency, temperature, scalars)
        if not condition:
            batch["x"] = torch.from_numpy(one["v"].astype(np.float32))[:, None]
        material = _material_index(columns, spec, n, path)
        if material is not None:
            batch["material"] = torch.from_numpy(material)
        _note_ranges(notes, spec, frequency, temperature, amplitude(current))
        _note_bias(notes, current)
        metadata = {"samples": samples, "periods": count.tolist(), "single": columns["i_p"].ndim == 1}
        yield Piece(batch, metadata, notes)

    def save(self, path: Path, pieces: Iterator[Piece]) -> list[Path]:
        """Write `v` [n, S] (V; [n, samples, S] for several a current) on the samples of the user's `i_p`.

        Beside it `i_p` as the model read it, on the same samples, `freq_hz`, and `temp_c` and `material` where known.
        """
        whole = Piece.joined(pieces)
        batch, metadata = whole.batch, whole.metadata
        columns = {
            "v": _unfolded(batch["x"], metadata),
            "i_p": _unfolded(batch["current"], metadata),
            "freq_hz": batch["frequency"].double().cpu().numpy(),
        }
        scalars = _scalars(self.spec)
        if "temperature" in scalars:
            columns["temp_c"] = batch["meta"][:, scalars.index("temperature")].double().cpu().numpy()
        if "material" in batch:
            columns["material"] = np.array(self.spec.fields["material"].names)[batch["material"].cpu().numpy()]
        save_npz(path, {name: column[0] if metadata["single"] else column for name, column in columns.items()})
        return [path]


def _scalars(spec: DataSpec) -> tuple[str, ...]:
    """The names of the scalar conditions."""
    return spec.fields["meta"].names if "meta" in spec.fields else ()


def _unfolded(signal: Tensor, metadata: Mapping[str, Any]) -> Array:
    """[n, ..., 1, L] of one period to the user's samples, row by row: each may hold another number of periods."""
    x = signal.detach().double().cpu().numpy().squeeze(-2)
    rows = [periods.unfold(row, k, metadata["samples"]) for row, k in zip(x, metadata["periods"], strict=True)]
    return np.stack(rows).astype(np.float32)


def _periods(columns: npz.Columns, current: Array, frequency: Array, path: Path, notes: list[str]) -> NDArray[np.int64]:
    """How many periods each row holds, [n]; an error where that is not a whole number, or where the keys disagree."""
    n, samples = current.shape
    given = [key for key in TIMES if key in columns]
    if not given:
        hidden = next(((k, at) for at, row in enumerate(current) if (k := periods.hidden_periods(row)) > 1), None)
        if hidden is not None:
            raise VqtoolError(
                f"`i_p` seems to hold {hidden[0]} periods in row {hidden[1]}, where one is expected",
                hint="add the key `dt` (seconds per sample) or `periods` (how many a row holds)",
                where=str(path),
            )
        notes.append(f"the {samples} samples of a row are taken as one period: the file has no `dt`")
        return np.ones(n, dtype=np.int64)
    held: list[Array] = []
    for key in given:
        value = npz.per_row(columns, key, n, path)
        if (value <= 0).any():
            raise VqtoolError(f"`{key}` must be positive", hint="seconds, hertz, or a count", where=str(path))
        held.append({"dt": samples * value * frequency, "sample_rate": samples / value * frequency}.get(key, value))
    for key, value in zip(given[1:], held[1:], strict=True):
        if not np.allclose(value, held[0], rtol=0.5 / samples):
            raise VqtoolError(
                f"`{given[0]}` and `{key}` give different lengths of the record",
                hint="one of dt, sample_rate and periods is enough",
                where=str(path),
            )
    count = np.rint(held[0])
    off = np.abs(held[0] - count) * samples > 0.5 * held[0]  # more than half a sample away from whole periods
    if bad := np.flatnonzero(off | (count < 1)).tolist():
        raise _not_whole(float(held[0][bad[0]]), bad, samples, given[0], path)
    return count.astype(np.int64)


def _not_whole(held: float, bad: list[int], samples: int, key: str, path: Path) -> VqtoolError:
    """The error for records that are not whole periods, with the cut that would fix the first of them."""
    whole = int(held)
    hint = f"check the units of `{key}` and `freq_hz`: seconds and hertz"
    if whole >= 1:
        hint = f"cut the record to {round(samples * whole / held)} samples, {whole} whole periods; or c{hint[1:]}"
    return VqtoolError(
        f"{samples} samples hold {held:.4g} periods of `freq_hz` in row {bad[0]} ({len(bad)} such rows);"
        " a record must hold whole periods",
        hint=hint,
        where=str(path),
    )


def _one_period(x: Array, count: NDArray[np.int64], length: int, name: str, path: Path, notes: list[str]) -> Array:
    """The mean period of each row, [n, length]; resampling is noted, periods that differ are an error."""
    samples = x.shape[1]
    short = samples / count < npz.SHORTEST
    if short.any():
        raise VqtoolError(
            f"`{name}` has {samples / count.max():.3g} samples a period; at least {npz.SHORTEST} are needed",
            hint="check that `dt` is in seconds and `freq_hz` in hertz, or sample faster",
            where=str(path),
        )
    out, worst = np.empty((len(x), length)), 0.0
    for k in np.unique(count).tolist():
        rows = count == k
        out[rows] = periods.fold(x[rows], k, length)
        differ = periods.unlike(x[rows], k)
        worst = max(worst, float(differ.max()))
        if worst > UNLIKE_REFUSED:
            row = int(np.flatnonzero(rows)[differ.argmax()])
            raise VqtoolError(
                f"the {k} periods of `{name}` in row {row} differ by {worst:.0%} of its rms: not steady at `freq_hz`",
                hint="check `freq_hz` and `dt`, or cut out a steady part",
                where=str(path),
            )
    if (count > 1).any():
        text = f"`{name}`: {_span(count)} periods a row were averaged to one"
        notes.append(text + (f" (they differ by up to {worst:.1%} of the rms)" if worst > UNLIKE_NOTED else ""))
    if ((samples / count) != length).any():
        notes.append(f"`{name}`: {_span(samples / count)} samples a period were resampled to {length}")
    return out


def _limited(current: Array, spec: DataSpec, notes: list[str]) -> Array:
    """The current without harmonics that no training current has: the model has never seen any."""
    harmonics = spec.about.get("current_harmonics")
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


def _material_index(columns: npz.Columns, spec: DataSpec, n: int, path: Path) -> NDArray[np.int64] | None:
    """The index [n] of each row's material, by name or code; None where nobody needs it and the file has none."""
    field = spec.fields["material"]
    names = field.names
    codes = spec.about.get("material_codes", names)
    known = {str(code).lower(): k for k, code in enumerate(codes)} | {name.lower(): k for k, name in enumerate(names)}
    shown = ", ".join(f"{name} ({code})" if code != name else name for name, code in zip(names, codes, strict=True))
    key = next((key for key in ("material", "material_code") if key in columns), None)
    if key is None:
        if field.role != "category":
            return None
        raise VqtoolError(f"`{path.name}` has no `material`", hint=f"add it; the model knows {shown}", where=str(path))
    asked = np.asarray(columns[key]).astype(str).reshape(-1)
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
        if value is None or key not in spec.about:
            continue
        low, high = spec.about[key]
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


def _span(value: NDArray[Any]) -> str:
    low, high = value.min(), value.max()
    return f"{low:.5g}" if low == high else f"{low:.5g} to {high:.5g}"
