"""Records of voltage and current: which samples are a waveform, how many periods each holds, one period of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError
from vqtool_voltage import checks, periods
from vqtool_voltage.raw_files import Columns

Array = NDArray[np.float64]
TIMES = ("dt", "sample_rate", "periods")
UNLIKE_NOTED, UNLIKE_REFUSED = 0.01, 0.25  # rms of what differs between the periods of a record / rms of the record


def arranged(columns: Columns, path: Path, notes: list[str]) -> Columns:
    """Waveforms as rows: tables of one sample a line are cut into them, waveforms in columns are turned.

    Raises:
        VqtoolError: where a waveform ends cannot be seen, or a column that should be constant within it varies.
    """
    wave = next((columns[key] for key in ("v", "i_p") if key in columns), None)
    if wave is None or wave.size == 0:
        return columns
    if wave.ndim == 1:
        return _cut(columns, len(wave), path, notes)
    known = [columns[key] for key in ("freq_hz", "material", "temp_c") if key in columns]
    n = next((len(column) for column in known if column.ndim == 1), None)
    if wave.ndim == 2 and n is not None and n == wave.shape[1] != wave.shape[0]:
        notes.append(f"{path.name}: waveforms are columns; they were turned into rows")
        columns = columns | {key: columns[key].T for key in ("v", "i_p") if key in columns}
    time = columns.get("time")
    if time is not None and "dt" not in columns and time.dtype.kind in "fiu" and time.size > 1:
        rows = time if time.ndim == 2 and time.shape == wave.shape else np.atleast_2d(time.reshape(-1))
        columns = columns | {"dt": _steps(rows, path)}
    return columns


def _steps(time: Array, path: Path) -> Array:
    """Seconds per sample of each row of times; they must be even."""
    gaps = np.diff(time.astype(np.float64), axis=1)
    step = gaps.mean(1)
    if (np.abs(gaps - step[:, None]) > 0.1 * np.abs(step[:, None])).any() or (step <= 0).any():
        raise VqtoolError("the times of the samples are not evenly spaced", hint="resample it evenly", where=str(path))
    return step


def _cut(columns: Columns, lines: int, path: Path, notes: list[str]) -> Columns:
    """A table of one sample a line as waveforms in rows, by the column `waveform` or where the time begins again."""
    begins = np.zeros(lines, dtype=bool)
    begins[0] = True
    order = np.arange(lines)
    name, time = columns.get("waveform"), columns.get("time")
    whole = {key: column for key, column in columns.items() if column.shape == (lines,)}
    if name is not None and name.shape == (lines,):
        _, first, index = np.unique(name, return_index=True, return_inverse=True)
        order = np.argsort(first[index], kind="stable")
        begins[1:] = np.diff(index[order]) != 0
    elif time is not None and time.shape == (lines,):
        begins[1:] = np.diff(time) < 0
    elif any(len(np.unique(whole[key])) > 1 for key in ("freq_hz", "temp_c", "material") if key in whole):
        raise VqtoolError(
            f"where a waveform of `{path.name}` ends and the next begins cannot be seen",
            hint="name the column that numbers the waveforms: -s data.names.waveform=COLUMN",
            where=str(path),
        )
    pieces = np.split(order, np.flatnonzero(begins)[1:])
    cut: Columns = {key: column for key, column in columns.items() if key not in whole}
    for key, column in whole.items():
        if key in ("v", "i_p"):
            cut[key] = _stacked([column[at] for at in pieces], path, key)
        elif key not in ("time", "waveform"):
            cut[key] = _constants(key, column, pieces, path)
    sizes = np.array([len(at) for at in pieces])
    if time is not None and "dt" not in cut and min(sizes) > 1:
        cut["dt"] = np.concatenate([_steps(time[at][None], path) for at in pieces])
    if "dt" in cut:
        cut["dt"] = cut["dt"] * sizes / max(sizes)
    if "sample_rate" in cut:
        cut["sample_rate"] = cut["sample_rate"] * max(sizes) / sizes
    if len(pieces) > 1:
        notes.append(f"{path.name}: {lines} lines are {len(pieces)} waveforms of {_span(sizes)} samples")
    return cut


def _stacked(waves: list[Array], path: Path, key: str) -> Array:
    """Records of whole periods [n, S]; shorter ones are resampled to the longest by their harmonics."""
    most = max(map(len, waves))
    if min(map(len, waves)) < checks.SHORTEST or any(w.dtype.kind not in "fiu" for w in waves):
        short = min(range(len(waves)), key=lambda k: len(waves[k]))
        raise VqtoolError(
            f"waveform {short} of `{path.name}` has {len(waves[short])} samples of `{key}`; numbers, and at least"
            f" {checks.SHORTEST} of them, are needed",
            hint="leave it out",
            where=str(path),
        )
    return np.stack([w if len(w) == most else periods.fold(w.astype(np.float64), 1, most) for w in waves])


def _constants(key: str, column: NDArray[Any], pieces: list[NDArray[np.int64]], path: Path) -> NDArray[Any]:
    """One value for each waveform."""
    for number, at in enumerate(pieces):
        if (column[at] != column[at[0]]).any():
            raise VqtoolError(
                f"`{key}` varies within waveform {number} of `{path.name}`",
                hint="it should be the same on all lines of a waveform; is another column the one that numbers them?"
                " -s data.names.waveform=COLUMN",
                where=str(path),
            )
    return np.array([column[at[0]] for at in pieces])


def with_frequency(columns: Columns, path: Path, notes: list[str]) -> Columns:
    """`freq_hz` from the sampling rate where the file has none: a row is then one period, or `periods` of them."""
    if "freq_hz" in columns:
        return columns
    samples = next(columns[key] for key in ("i_p", "v") if key in columns).shape[-1]
    count = np.asarray(columns.get("periods", 1.0), dtype=np.float64)
    if "dt" in columns:
        frequency = count / (samples * np.asarray(columns["dt"], dtype=np.float64))
    elif "sample_rate" in columns:
        frequency = count * np.asarray(columns["sample_rate"], dtype=np.float64) / samples
    else:
        raise VqtoolError(
            f"`{path.name}` has no `freq_hz` (frequency), and no `dt`, `sample_rate` or `time` that it follows from",
            hint="add the frequency in hertz, or name it: -s data.names.frequency=COLUMN",
            where=str(path),
        )
    notes.append("the file has no frequency: a row is taken as one period" if "periods" not in columns else
                 "the frequency was taken from the sampling rate and `periods`")  # fmt: skip
    return columns | {"freq_hz": np.atleast_1d(frequency)}


def counted(columns: Columns, current: Array, frequency: Array, path: Path, notes: list[str]) -> NDArray[np.int64]:
    """How many periods each row holds, [n]; an error where that is not a whole number, or where the keys disagree."""
    n, samples = current.shape
    given = [key for key in TIMES if key in columns]
    if not given:
        hidden = next(((k, at) for at, row in enumerate(current) if (k := periods.hidden_periods(row)) > 1), None)
        if hidden is not None:
            raise VqtoolError(
                f"`i_p` seems to hold {hidden[0]} periods in row {hidden[1]}, where one is expected",
                hint="add `dt` (seconds per sample) or `periods` (how many a row holds)",
                where=str(path),
            )
        notes.append(f"the {samples} samples of a row are taken as one period: the file has no `dt`")
        return np.ones(n, dtype=np.int64)
    held: list[Array] = []
    for key in given:
        value = checks.per_row(columns, key, n, path)
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


def one_period(x: Array, count: NDArray[np.int64], length: int, name: str, path: Path, notes: list[str]) -> Array:
    """The mean period of each row, [n, length]; resampling is noted, periods that differ are an error."""
    samples = x.shape[1]
    short = samples / count < checks.SHORTEST
    if short.any():
        raise VqtoolError(
            f"`{name}` has {samples / count.max():.3g} samples a period; at least {checks.SHORTEST} are needed",
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


def _span(value: NDArray[Any]) -> str:
    low, high = value.min(), value.max()
    return f"{low:.5g}" if low == high else f"{low:.5g} to {high:.5g}"
