"""Splits: by column, station or trace; one waveform never stands in two; what was decided is reported."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vqtool.errors import VqtoolError
from vqtool_seismic.splits import divided
from vqtool_seismic.traces import Trace

TRACES = [
    Trace(f"k{i}", f"n{i}{'-noise' * noise}", f"XX.S{i // 4}", 9000, 100.0, noise=noise)
    for i in range(40)
    for noise in (False, True)
]


def cut(traces: list[Trace], by: str, seed: int = 0) -> tuple[dict[str, list[Trace]], list[str]]:
    notes: list[str] = []
    return divided(traces, by, 0.1, 0.2, seed, notes), notes  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["auto", "station", "trace"])
@pytest.mark.parametrize("seed", range(5))
def test_nothing_leaks(by: str, seed: int) -> None:
    parts, _ = cut(TRACES, by, seed)
    assert sum(map(len, parts.values())) == len(TRACES)
    for what in ("key", "station") if by != "trace" else ("key",):
        sides = [{getattr(t, what) for t in part} for part in parts.values()]
        assert all(sides)
        assert sum(map(len, sides)) == len(set.union(*sides)), f"a {what} stands in two splits"


def test_shares_are_kept_and_seeds_differ() -> None:
    parts, _ = cut(TRACES, "station")
    assert len({t.station for t in parts["test"]}) == 2
    assert len({t.station for t in parts["valid"]}) == 1
    assert parts["test"] != cut(TRACES, "station", 1)[0]["test"]
    by_trace, _ = cut(TRACES, "trace")  # a share is of all 40 traces, not of those that the split before left
    assert {name: len({t.key for t in part}) for name, part in by_trace.items()} == {"train": 28, "valid": 4, "test": 8}


def test_the_catalogue_s_splits_by_any_usual_name() -> None:
    named = [replace(t, split="train" if i % 80 < 40 else "DEV".lower() if i % 80 < 60 else "test")
             for i, t in enumerate(TRACES)]  # fmt: skip
    parts, notes = cut(named, "auto")
    assert {name: {t.split for t in part} for name, part in parts.items()} == {
        "train": {"train"},
        "valid": {"dev"},
        "test": {"test"},
    }
    assert notes == []


def test_a_waveform_in_two_listed_splits_is_left_out_and_reported() -> None:
    named = [replace(t, split="train" if i % 2 else "test") for i, t in enumerate(TRACES)]  # noise apart from its event
    parts, notes = cut([*named, *(replace(t, key=f"z{i}", split="train") for i, t in enumerate(TRACES[:20]))], "auto")
    assert not parts["test"]
    assert any("80 traces are left out" in note for note in notes)


def test_shared_stations_and_missing_splits_are_reported() -> None:
    named = [replace(t, split=("train", "test")[i // 2 % 2]) for i, t in enumerate(TRACES)]
    named[0] = replace(named[0], split="")
    parts, notes = cut(named, "column")
    assert parts["valid"]
    assert not {t.station for t in parts["valid"]} & {t.station for t in parts["train"]}
    assert any("1 traces are in no split" in note for note in notes)
    assert any("marked for validation" in note for note in notes)
    assert any("figures are of seen stations" in note for note in notes)


def test_few_stations_are_split_by_trace_with_a_note() -> None:
    parts, notes = cut([replace(t, station="XX.A") for t in TRACES], "auto")
    assert all(parts.values())
    assert "too few" in notes[0]


def test_nothing_to_divide_is_an_error() -> None:
    with pytest.raises(VqtoolError, match="no trace has a `split`"):
        cut(TRACES, "column")
    with pytest.raises(VqtoolError, match="there are 2 stations or traces"):
        cut(TRACES[:4], "trace")
