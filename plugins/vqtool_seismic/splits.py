"""Which traces train, validate and test: as the catalogue says, by station, or by trace; never one waveform in two."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

from vqtool.errors import VqtoolError
from vqtool_seismic.traces import Trace

By = Literal["auto", "column", "station", "trace"]
NAMES = {"train": "train", "training": "train", "dev": "valid", "valid": "valid", "val": "valid",
         "validation": "valid", "test": "test", "testing": "test"}  # fmt: skip
SPLITS = ("train", "valid", "test")
FEW = 5  # stations below which a set is split by trace


def divided(
    traces: Sequence[Trace], by: By, valid_share: float, test_share: float, seed: int, notes: list[str]
) -> dict[str, list[Trace]]:
    """`{"train", "valid", "test"}`; what was decided on the way is added to `notes`.

    Raises VqtoolError where the catalogue was to say it and does not, or where there is nothing to divide.
    """
    if by == "column" and not any(trace.split for trace in traces):
        raise VqtoolError("no trace has a `split`", hint='split = "station" divides by station', where="[data] split")
    if by == "auto":
        stations = {trace.station for trace in traces}
        by = "column" if any(t.split for t in traces) else "station" if len(stations) >= FEW else "trace"
        if by == "trace":
            notes.append(f"{len(stations)} stations are too few to hold some out: split by trace")
    cut: dict[str, list[Trace]] = {name: [] for name in SPLITS}
    if by == "column":
        for trace in _as_listed(traces, notes):
            cut[NAMES[trace.split]].append(trace)
        if not cut["valid"] and cut["train"]:
            chosen = _drawn(cut["train"], lambda t: t.station, {"valid": valid_share}, seed)
            cut["train"], cut["valid"] = chosen["train"], chosen["valid"]
            notes.append("no trace is marked for validation: some stations of the training split are taken")
        _tell_shared_stations(cut, notes)
    else:
        unit: Callable[[Trace], str] = (lambda t: t.station) if by == "station" else (lambda t: t.key)
        cut = _drawn(traces, unit, {"test": test_share, "valid": valid_share}, seed)
    return cut


def _as_listed(traces: Sequence[Trace], notes: list[str]) -> list[Trace]:
    """The traces with a known split; one whose waveform stands in another split too is left out, as is one without."""
    splits: dict[str, set[str]] = defaultdict(set)
    known = [trace for trace in traces if trace.split in NAMES]
    for trace in known:
        splits[trace.key].add(NAMES[trace.split])
    kept = [trace for trace in known if len(splits[trace.key]) == 1]
    if len(known) < len(traces):
        notes.append(f"{len(traces) - len(known)} traces are in no split and left out")
    if len(kept) < len(known):
        notes.append(f"{len(known) - len(kept)} traces are left out: their waveform stands in two splits")
    return kept


def _tell_shared_stations(cut: dict[str, list[Trace]], notes: list[str]) -> None:
    train = {trace.station for trace in cut["train"]}
    shared = {trace.station for name in ("valid", "test") for trace in cut[name]} & train
    if shared:
        notes.append(f"{len(shared)} stations stand in training and in held-out splits: figures are of seen stations")


def _drawn(
    traces: Sequence[Trace], unit: Callable[[Trace], str], shares: dict[str, float], seed: int
) -> dict[str, list[Trace]]:
    """Whole units to each split by a hash of their name: adding traces moves no unit but at the borders."""
    members: dict[str, list[Trace]] = defaultdict(list)
    for trace in traces:
        members[unit(trace)].append(trace)
    order = sorted(members, key=lambda name: hashlib.blake2b(f"{seed} {name}".encode()).digest())
    if len(order) <= len(shares):
        raise VqtoolError(
            f"there are {len(order)} stations or traces to divide into {len(shares) + 1} splits",
            hint='more traces, or split = "trace"',
            where="[data] split",
        )
    cut: dict[str, list[Trace]] = {"train": []}
    for name, share in shares.items():
        taken = max(1, round(share * len(members)))
        cut[name] = [trace for name_ in order[:taken] for trace in members[name_]]
        order = order[taken:]
    cut["train"] = [trace for name_ in order for trace in members[name_]]
    return cut
