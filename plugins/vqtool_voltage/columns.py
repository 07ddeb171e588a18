"""Which array of a user's file is the voltage, the current and so on, and in which units."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.errors import VqtoolError
from vqtool_voltage.raw_files import NUMBER, Columns, read
from vqtool_voltage.units import UNITS, unit_of

OURS = {
    "voltage": "v",
    "current": "i_p",
    "frequency": "freq_hz",
    "temperature": "temp_c",
    "material": "material",
    "position": "x_position",
    "dt": "dt",
    "sample_rate": "sample_rate",
    "periods": "periods",
    "time": "time",
    "waveform": "waveform",
}
USUAL = {
    "v": "v u voltage volt volts v_l vl v_s vs v_p vp v_out voltages voltage_v v_waveform voltage_waveform",
    "i_p": "i_p i current ip i_l il i_s currents current_a amps ampere i_waveform current_waveform",
    "freq_hz": "freq_hz freq frequency f f0 fsw f_sw f_hz fundamental frequencies switching_frequency",
    "temp_c": "temp_c temp temperature t_c temperature_c temps celsius",
    "material": "material mat core core_material ferrite materials grade",
    "x_position": "x_position position pos",
    "dt": "dt delta_t time_step timestep sampling_time sample_time ts sampling_period",
    "sample_rate": "sample_rate fs sampling_rate sampling_frequency samplerate",
    "periods": "periods n_periods cycles n_cycles",
    "time": "time t time_s times second seconds sec",
    "waveform": "waveform waveform_id id unique_id record record_id measurement measurement_id cycle_id run row",
}
WORDS = {word for words in USUAL.values() for word in words.split()}
KELVIN = 273.15
ASKED = ("names", "voltage_unit", "current_unit", "frequency_unit", "temperature_unit")
OPTION = {"v": "voltage_unit", "i_p": "current_unit", "freq_hz": "frequency_unit", "temp_c": "temperature_unit"}


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is to be read: names that are not the usual ones, and units.

    `given` are the units that the user states for this file, `inherited` those of the training data.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    inherited: Mapping[str, str] = field(default_factory=dict)
    lenient: bool = False  # names of the training data that this file may not have

    def unit(self, ours: str) -> str:
        """The unit that the user states, of this file or of the training data; "" where none is."""
        return self.given.get(ours) or self.inherited.get(ours, "")

    @classmethod
    def of(cls, options: Mapping[str, Any], asked: Mapping[str, Any] | None = None) -> Reading:
        """From a data set's options; with `asked`, of another file, for which those are set."""

        def units(of: Mapping[str, Any]) -> dict[str, str]:
            return {ours: of[option] for ours, option in OPTION.items() if of.get(option) is not None}

        if asked is None:
            return cls(options.get("names") or {}, units(options))
        names = asked.get("names", options.get("names")) or {}
        return cls(names, units(asked), units(options), lenient="names" not in asked)


def load(path: Path, needed: Sequence[str], reading: Reading, notes: list[str], *, keep: Sequence[str] = ()) -> Columns:
    """The arrays of a file under the names of `OURS`, in V, A, Hz, C and s, and `keep` as they are where present.

    Names and units that had to be recognised are noted. A unit comes from the options, or from a header such as
    `current [mA]` or `freq_khz`.

    Raises:
        VqtoolError: one of `needed` is missing, two arrays could be the same thing, a word stands among numbers, or the
            file cannot be read.
    """
    raw, names = read(
        path, lambda name: name in keep or name in reading.names.values() or _split(name)[0] in WORDS, notes
    )
    found = _found(raw, reading, path, names)
    missing = [ours for ours in needed if ours not in found]
    if missing:
        raise _missing(missing, names, path)
    columns: Columns = {name: raw[name] for name in keep if name in raw}
    renamed = []
    for ours, (name, unit) in found.items():
        if ours in UNITS:
            _refuse_words(raw[name], name, path)
        columns[ours] = raw[name]
        unit = reading.given.get(ours, unit or reading.inherited.get(ours, ""))
        if name != ours or unit not in ("", *list(UNITS.get(ours, ("",)))[:1]):
            renamed.append(f"`{ours}` from `{name}`" + (f" in {unit}" if unit else ""))
        if unit in UNITS.get(ours, {}):
            columns[ours] = _converted(columns[ours], ours, unit)
    if renamed:
        notes.append(f"read from {path.name}: " + ", ".join(renamed))
    return columns


def _found(raw: Columns, reading: Reading, path: Path, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """For each of `OURS`' values that the file has: the array's name, and the unit that its name gives or ""."""
    found: dict[str, tuple[str, str]] = {}
    for what, name in reading.names.items():
        if what not in OURS:
            raise VqtoolError(f"`{what}` cannot be named", hint="names are of " + listed(OURS), where="data.names")
        if name in raw:
            found[OURS[what]] = (name, _split(name)[1])
        elif not reading.lenient:
            raise VqtoolError(f"`{path.name}` has no `{name}`", hint="it has " + listed(names), where=str(path))
    taken = {name for name, _ in found.values()}
    for ours, words in USUAL.items():
        if ours in found:
            continue
        if ours in raw:
            found[ours] = (ours, "")
            continue
        usual = words.split()
        hits = [(name, unit) for name in raw if name not in taken
                for plain, unit in [_split(name)] if plain in usual and unit in ("", *UNITS.get(ours, {}))]  # fmt: skip
        if len(hits) > 1:
            what = next(key for key, value in OURS.items() if value == ours)
            raise VqtoolError(
                f"{listed(name for name, _ in hits)} of `{path.name}` could each be the {what}",
                hint=f"name one: {named(what, hits[0][0])}",
                where=str(path),
            )
        if hits:
            found[ours] = hits[0]
    return found


def _refuse_words(column: Any, name: str, path: Path) -> None:
    """Raise an error for the first cell of a column of numbers that is a word."""
    if column.dtype.kind != "U":
        return
    for row, cell in enumerate(column.reshape(-1)):
        if NUMBER.fullmatch(cell.strip()) is None:
            message = f"`{cell[:40]}` in row {row + 1} of `{name}` is not a number"
            raise VqtoolError(message, hint="correct it, or leave the line out", where=str(path))


def _split(name: str) -> tuple[str, str]:
    """A name as `USUAL` has it, and its unit: `Current [mA]`, `current_ma` and `current (mA)` are current in mA."""
    match = re.fullmatch(r"\s*(.*?)\s*[\[(/]\s*([^\])]+?)\s*[\])]?\s*", name)
    if match is not None and (unit := unit_of(match[2])):
        return _word(match[1]), unit
    plain = _word(name)
    stem, _, last = plain.rpartition("_")
    if plain not in WORDS and stem in WORDS and (unit := unit_of(last)):
        return stem, unit
    return plain, ""


def _word(name: str) -> str:
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")


def _converted(column: Any, ours: str, unit: str) -> Any:
    if column.dtype.kind not in "fiu":
        return column
    if ours == "temp_c":
        return column - KELVIN if unit == "K" else column
    scale = UNITS[ours][unit]
    return column if scale == 1.0 else column.astype(np.float64) * scale


def _missing(missing: Sequence[str], names: Sequence[str], path: Path) -> VqtoolError:
    meaning = {ours: what for what, ours in OURS.items()}
    lack = ", ".join(f"`{ours}` (the {meaning[ours]})" if ours != meaning[ours] else f"`{ours}`" for ours in missing)
    free = next((name for name in names if _split(name)[0] not in WORDS), "NAME")
    return VqtoolError(
        f"`{path.name}` has no {lack}; it has {listed(names) or 'no arrays at all'}",
        hint=f"if it has another name: {named(meaning[missing[0]], free)}",
        where=str(path),
    )


def listed(names: Iterable[str]) -> str:
    """Names in a message."""
    return ", ".join(f"`{name}`" for name in names)


def named(what: str, name: str) -> str:
    """The option that names an array, as it is typed in a shell."""
    return "-s " + shlex.quote(f"data.names.{what}={name}")
