"""Which component of ground motion a channel records: by its SEED code, its compass name or a declared mapping."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from vqtool.errors import VqtoolError, counted
from vqtool_seismic.messages import MOST, listed, shown
from vqtool_seismic.traces import same_rate
from vqtool_seismic.tracks import Track

SLOWEST = 10.0  # Hz: slower channels are averages, mass positions and state of health
COMPASS = re.compile(r"(NS|EW|UD)(\d?)")  # K-NET; in KiK-net the digit says borehole or surface
OF_COMPASS = {"NS": "N", "EW": "E", "UD": "Z"}
SEED = re.compile(r"([FGDCESHBMLVUWRPTQJ])([A-Z])([A-Z0-9])")  # band, instrument, orientation
OF_SEED = {"Z": "Z", "N": "N", "E": "E", "1": "N", "2": "E", "3": "Z"}
MOTION = "HLGNP"  # high gain, low gain, gravimeter or accelerometer, accelerometer, geophone
OTHER = {
    "A": "tilt", "B": "creep", "C": "calibration", "D": "pressure", "E": "electronics", "F": "magnetic field",
    "I": "humidity", "J": "rotation", "K": "temperature", "M": "mass position", "O": "water current",
    "Q": "electric potential", "R": "rainfall", "S": "strain", "T": "tide", "U": "light", "V": "volume strain",
    "W": "wind", "Z": "a beam of many sensors",
}  # fmt: skip
ORIENTED = "AFJMST"  # other instruments that have Z, N and E; of the rest these letters are no SEED code
HEALTH = re.compile(r"[AO](?![HLGNP][ZNE])[A-Z]{2}|LOG|SOH")  # administrative, opaque
WORDS = {"VERT": "Z", "UP": "Z", "NORTH": "N", "EAST": "E"}
LAST = re.compile(r"^.{0,3}([ZNEXY])$", re.IGNORECASE)  # of a short name
FILE = re.compile(r"(?:^|[._ -])(?:[A-Z][HLGNP])?([ZNE])(?:\.\w+)?$", re.IGNORECASE)  # of the name of a file
NUMBERED = ("RG16", "REFTEK130")  # formats whose channels are numbered; ObsPy makes codes like DP2 and EH1 of them


class Channels:
    """Finds the place of each channel, and counts those that are left out or unclear.

    `declared` maps names of channels (or of files, where a channel has no name) to Z, N or E. A `*` in a name stands
    for any characters, and those that it stands for name the instrument; without a `*` see `_rules`. It goes before
    all other rules, and channels that neither it nor a rule knows are then left out. Without it they are an error.
    Digits for orientations are taken as N and E only where nothing speaks against it; see `numbers_dropped`.
    """

    def __init__(self, declared: Mapping[str, str] | None = None, slowest: float = SLOWEST) -> None:
        self.slowest = slowest
        self._declared, self._rules = declared, _rules(declared or {})
        self._used = set[str]()
        self._left: dict[str, dict[str, str]] = {}  # reason -> id of a channel -> its name
        self._unclear: dict[str, str | None] = {}  # name -> what it probably is
        self._assumed: dict[str, str] = {}
        self._numbered: dict[str, dict[str, Track]] = defaultdict(dict)  # instrument -> names of its channels

    def place(self, track: Track, file: Path) -> tuple[str, str] | None:
        """The instrument and the component of a channel; None where it is left out or unclear."""
        name = track.channel.strip() or file.name
        if track.text:
            self._leave("text, not samples", track, name)
            return None
        if track.rate < self.slowest and not same_rate(track.rate, self.slowest):
            self._leave(f"slower than {self.slowest:g} Hz", track, name)
            return None
        for written, pattern, component, group in self._rules:
            if found := pattern.fullmatch(name):
                self._used.add(written)
                return _declared_place(track, group or "".join(found.groups())), component
        if found := COMPASS.fullmatch(name):
            return f"{track.sensor}.{found[2]}", OF_COMPASS[found[1]]
        by_code = self._by_seed(track, name)
        if by_code is not None:
            return f"{track.sensor}.{name[:-1]}", by_code
        return None

    def _by_seed(self, track: Track, name: str) -> str | None:
        """The component that a SEED code says; else the channel is noted as left out or unclear."""
        found = SEED.fullmatch(name)
        if found and found[2] in MOTION and (found[3] in "ZNE" or found[3].isdigit()):
            self._numbered[f"{track.sensor}.{name[:-1]}"][name] = track
            return OF_SEED.get(found[3], "Z")
        if HEALTH.fullmatch(name):
            self._leave("state of health", track, name)
        elif found and found[2] in OTHER and (found[2] in ORIENTED or found[3] not in "ZNE"):
            self._leave(f"{OTHER[found[2]]}, not ground motion", track, name)
        else:
            self._puzzle(track, name)
        return None

    def _puzzle(self, track: Track, name: str) -> None:
        if self._declared is not None:
            self._leave("not in `data.components`, and no SEED code of ground motion", track, name)
        elif name not in self._unclear:
            self._unclear[name] = track.pointing or probable(name)

    def numbers_dropped(self) -> set[str]:
        """The codes of channels that end in a digit which does not say how they are oriented, now that all are known.

        1 and 2 are horizontal beside Z, and 3 is vertical beside them alone. Other digits number sensors, as do those
        that ObsPy gives to channels of formats in which they have none.
        """
        dropped = set[str]()
        for channels in self._numbered.values():
            ends = {name[-1] for name in channels} - set("NE")
            sound = ends <= {"1", "2", "Z"} or ends == {"1", "2", "3"}
            for name, track in channels.items():
                if name[-1].isdigit() and (not sound or track.form in NUMBERED):
                    dropped.add(track.code)
                    self._puzzle(track, name)
                elif name[-1].isdigit():
                    self._assumed[track.code] = name
        return dropped

    def _leave(self, reason: str, track: Track, name: str) -> None:
        self._left.setdefault(reason, {})[f"{track.sensor}.{name}"] = name

    def skipped(self) -> Counter[str]:
        """Why channels are left out, with some of their names, and how many they are."""
        return Counter({f"{why} ({listed(each.values())})": len(each) for why, each in self._left.items()})

    def notes(self) -> list[str]:
        """What is assumed of channels, and what is declared of none."""
        notes = []
        if self._assumed:
            names, many = listed(self._assumed.values()), counted(len(self._assumed), "channel")
            notes.append(f"read {many} of unknown azimuth as 1 = N, 2 = E, 3 = Z: {names}")
        if unused := [name for name in self._declared or () if name not in self._used]:
            notes.append(f"no channel has these names of `data.components`: {listed(unused)}")
        return notes

    def check(self, path: Path) -> None:
        """One error for all channels whose component is unclear, with the mapping that makes it clear."""
        if not self._unclear:
            return
        guessed = _filled(dict(list(self._unclear.items())[: 2 * MOST]))
        pairs = ", ".join(f"{_key(name)} = {json.dumps(component)}" for name, component in guessed.items())
        meaning = {"Z": "is vertical", "N": "points north", "E": "points east"}
        means = ", ".join(f"{shown(name)} {meaning[component]}" for name, component in guessed.items())
        setting = shlex.quote(f"data.components={{{pairs}}}")
        rest = "channels that are not in `data.components` and have no SEED code are skipped"
        if len(guessed) < len(self._unclear):
            rest += ", and a `*` in a name stands for any characters"
        raise VqtoolError(
            f"cannot tell which component of ground motion is recorded by {counted(len(self._unclear), 'channel')}"
            f" of `{path.name}`: {listed(self._unclear)}",
            hint=f"-s {setting} if {means}; {rest}",
            where=str(path),
        )


def _rules(declared: Mapping[str, str]) -> list[tuple[str, re.Pattern[str], str, str]]:
    """(name, pattern of it, component, name of the instrument) of each entry; those without a `*` first.

    A name that ends in its component, like `SZ` and `S N`, names the instrument by what stands before it. Others
    belong together in their order, until a component comes again; those with SEED codes have an order for each
    instrument.
    """
    exact, wild, latest = [], [], dict[str, tuple[str, set[str]]]()
    for name, component in declared.items():
        if component not in ("Z", "N", "E"):
            raise VqtoolError(
                f"{shown(name)} is declared as {shown(str(component))}, which is none of Z, N and E",
                hint='-s \'data.components={HHX = "E", HHY = "N"}\'',
                where="data.components",
            )
        if "*" in name:
            wild.append((name, re.compile("(.*)".join(map(re.escape, name.split("*"))), re.DOTALL), component, ""))
        elif name.endswith(component):
            exact.append((name, re.compile(re.escape(name)), component, name[:-1]))
        else:
            own = name[:-1] if SEED.fullmatch(name) else ""
            group, seen = latest.get(own, (own, set()))
            if component in seen:
                group, seen = f"{own}{name}", set()
            latest[own] = group, seen | {component}
            exact.append((name, re.compile(re.escape(name)), component, group))
    return [*exact, *wild]


def _declared_place(track: Track, group: str) -> str:
    """The instrument of a declared channel; a group of channels without a station is taken for one."""
    group = re.sub(r"[.\s]", "_", group).strip("_")
    network, station, location = track.sensor.split(".", 2)
    return f"{network}.{station}.{location}.{group}" if station else f"{network}.{group}.{location}."


def probable(name: str) -> str | None:
    """The component that a name suggests to somebody who reads it, which is not enough to take it as that."""
    for word, component in (*OF_COMPASS.items(), *WORDS.items()):
        if name.upper().startswith(word):
            return component
    if SEED.fullmatch(name) and name[-1] in "RT":
        return {"R": "N", "T": "E"}[name[-1]]  # radial and transverse are horizontal
    found = LAST.search(name) or FILE.search(name)
    return None if found is None else {"X": "E", "Y": "N"}.get(found[1].upper(), found[1].upper())


def _filled(suggested: Mapping[str, str | None]) -> dict[str, str]:
    """Each channel with its probable component; others get what their neighbours by name do not have yet."""
    made, taken = {}, defaultdict[str, list[str]](list)
    for name, component in suggested.items():
        if component is not None:
            taken[name[:-1]].append(component)
    for name in sorted(suggested):
        own = taken[name[:-1]]
        made[name] = suggested[name] or min("ZNE", key=own.count)
        if suggested[name] is None:
            own.append(made[name])
    return made


def _key(name: str) -> str:
    """A name as a key of TOML."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
