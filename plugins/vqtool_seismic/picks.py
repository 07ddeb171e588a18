"""Phase picks from QuakeML or from a table: when P and S arrived at a station."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from vqtool.errors import VqtoolError
from vqtool.files import missing_file
from vqtool.untrusted import no_twins
from vqtool_seismic.obspy_files import events
from vqtool_seismic.traces import seconds_of

COLUMNS = {  # what a table may call them; the first that is there counts
    "station": ("station_id", "station", "id", "sta"),
    "time": ("phase_time", "time", "pick_time", "begin_time_utc"),
    "phase": ("phase_type", "phase", "phase_hint", "type"),
}
SEPARATORS = ",;\t"
SAME = 15.0  # s by which a second P pick follows the first at most: Pg after Pn at some 480 km


@dataclass(frozen=True, slots=True)
class Pick:
    """One arrival."""

    station: str  # "NET.STA", or "STA" where the network is unknown
    phase: str  # "P" or "S"
    time: float  # seconds since 1970


def read_picks(path: Path) -> list[Pick]:
    """Picks of a `.csv` file, else of whatever ObsPy reads events from (QuakeML, ...), in order of time.

    A table needs a column for the station ("NET.STA", "NET.STA.LOC.CHA" or "STA"; a column `network` is put before
    it), one for the time in UTC and one for the phase; of phases the first letter counts. Columns are parted by
    commas, semicolons or tabs. A pick that is listed twice counts once.
    """
    if not path.is_file():
        raise missing_file(path, where="[data] picks")
    found = _from_table(path) if path.suffix.lower() == ".csv" else _from_events(path)
    if not found:
        raise VqtoolError(f"`{path}` holds no picks of P or S", where="[data] picks")
    return sorted(set(found), key=lambda pick: (pick.time, pick.phase, pick.station))


def of_station(picks: list[Pick], station: str) -> list[Pick]:
    """Those of a station "NET.STA"; a pick without a network fits by its station's code alone."""
    code = station.rsplit(".", 1)[-1]
    return [pick for pick in picks if pick.station in (station, code) or ("." not in station and
            pick.station.rsplit(".", 1)[-1] == code)]  # fmt: skip


def _from_events(path: Path) -> list[Pick]:
    made = []
    for pick in (pick for event in events(path) for pick in event.picks):
        phase, where = (pick.phase_hint or "").strip().upper()[:1], pick.waveform_id
        if phase in ("P", "S") and where is not None and where.station_code and pick.time is not None:
            station = ".".join(filter(None, (where.network_code, where.station_code)))
            made.append(Pick(station, phase, pick.time.timestamp))
    return made


def _from_table(path: Path) -> list[Pick]:
    try:
        return _rows(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise VqtoolError(f"`{path.name}` is not a table that can be read: {error}", where=str(path)) from error


def _rows(path: Path) -> list[Pick]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=max(SEPARATORS, key=header.count))
        no_twins(reader.fieldnames or (), path)
        there = {name.strip().lower(): name for name in reader.fieldnames or ()}
        name = {key: next((there[n] for n in names if n in there), None) for key, names in COLUMNS.items()}
        missing = [key for key, column in name.items() if column is None]
        if missing:
            raise VqtoolError(
                f"`{path}` has no column for the {', '.join(missing)}",
                hint="station_id, phase_time and phase_type, as pickers write them",
                where="[data] picks",
            )
        made = []
        for number, row in enumerate(reader, 2):
            phase = (row[name["phase"]] or "").strip().upper()[:1]
            if phase not in ("P", "S"):
                continue
            parts = (row[name["station"]] or "").split(".")
            network = (row.get(there.get("network", ""), "") or "").strip()
            station = ".".join(filter(None, parts[:2] if len(parts) > 1 else [network, parts[0]]))
            made.append(Pick(station, phase, _time(row[name["time"]], f"{path}:{number}")))
        return made


def _time(text: str, where: str) -> float:
    """Seconds since 1970 of an ISO time in UTC, or of a number that says them."""
    try:
        return seconds_of(text or "")
    except ValueError:
        raise VqtoolError(f"`{text}` is no time", hint="2014-04-01T02:00:05.250", where=where) from None


def arrivals(picks: list[Pick]) -> list[tuple[float, float]]:
    """(P, S) of each event of one station, from its picks in order: the S is the first before the next P, or NaN.

    Several P picks of one earthquake (Pn and Pg, an automatic one and an analyst's) are its first: a P that lies
    nearer to the P before it than to the S behind it, and within `SAME`, begins no event of its own.
    """
    pairs: list[tuple[float, float]] = []
    for pick in picks:
        if pick.phase == "P":
            pairs.append((pick.time, math.nan))
        elif pairs and math.isnan(pairs[-1][1]):
            p = pairs.pop()[0]
            while pairs and math.isnan(pairs[-1][1]) and p - pairs[-1][0] < min(pick.time - p, SAME):
                p = pairs.pop()[0]
            pairs.append((p, pick.time))
    return pairs


def events_in(picks: list[Pick]) -> int:
    """How many P arrivals the picks of all stations hold, several of one earthquake counted once."""
    of: dict[str, list[Pick]] = defaultdict(list)
    for pick in picks:
        of[pick.station].append(pick)
    return sum(len(arrivals(own)) for own in of.values())
