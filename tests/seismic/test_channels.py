"""Channels: which are Z, N and E of an instrument, which are left out, and which need the mapping of the error."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
from obspy import Stream, Trace, UTCDateTime

from vqtool.errors import VqtoolError
from vqtool_seismic import messages
from vqtool_seismic.channels import listed, shown
from vqtool_seismic.recordings import Recordings

START = UTCDateTime("2014-04-01")
RNG = np.random.default_rng(0)


def trace(
    channel: str, *, station: str = "AAA", rate: float = 100.0, seconds: float = 30, network: str = "XX"
) -> Trace:
    """Noise in counts."""
    head = {"network": network, "station": station, "channel": channel, "sampling_rate": rate, "starttime": START}
    return Trace((1000 * RNG.normal(size=round(seconds * rate))).astype(np.int32), head)


def placed(path: Path, declared: dict[str, str] | None = None) -> dict[str, str]:
    """Instrument and component of each channel of a file or folder."""
    found = Recordings(path, declared)
    return {part.code: f"{name} {part.component}" for name, parts in found.parts.items() for part in parts}


def followed(error: VqtoolError) -> dict[str, str]:
    """The mapping of the hint, as the shell and the reader of options take it."""
    setting = re.search(r"^-s ('.*?'|\S+) if ", error.hint or "")
    assert setting, error.hint
    (text,) = shlex.split(setting[1])
    return tomllib.loads(text.removeprefix("data."))["components"]


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ("HHZ HHN HHE", "HH Z, HH N, HH E"),
        ("BHZ BH1 BH2", "BH Z, BH N, BH E"),
        ("HN1 HN2 HN3", "HN N, HN E, HN Z"),
        ("EW NS UD", " E,  N,  Z"),
        ("EW1 NS1 UD1 EW2 NS2 UD2", "1 E, 1 N, 1 Z, 2 E, 2 N, 2 Z"),  # KiK-net: borehole and surface
    ],
)
def test_names_that_say_their_component(tmp_path: Path, channels: str, expected: str) -> None:
    Stream([trace(name) for name in channels.split()]).write(str(tmp_path / "a.mseed"), format="MSEED")
    assert list(placed(tmp_path / "a.mseed").values()) == [f"XX.AAA..{one}" for one in expected.split(", ")]


@pytest.mark.parametrize(
    ("channels", "mapping"),
    [
        ("a100 a101 a102 a103", "Z N E Z"),  # WIN: numbers of channels, of which two end like N and E
        ("a100 a101 f111 f112 f113", "Z N Z N E"),
        ("001 002 003", "Z N E"),
        ("bhe bhn bhz", "E N Z"),
        ("East North Vertical", "E N Z"),
        ("X Y Z", "E N Z"),
        ("0BE 1AN", "E N"),
        ("Z N E", "Z N E"),
        ("BZ BN BE", "Z N E"),
        ("HHF", "Z"),
        ("GP1 GP2 GP3 GP4", "Z N E Z"),  # four geophones
        ("DP3", "Z"),
        ("EH0 EH1 EH2", "Z N E"),
        ("SBZ", "Z"),
        ("HHR HHT", "N E"),  # turned to the source: horizontal both
    ],
)
def test_others_are_one_error_with_a_mapping_that_works(tmp_path: Path, channels: str, mapping: str) -> None:
    path, names = tmp_path / "a.slist", channels.split()
    Stream([trace(name) for name in names]).write(str(path), format="SLIST")
    with pytest.raises(
        VqtoolError, match=f"cannot tell which component of ground motion is recorded by {len(names)} "
    ) as caught:
        Recordings(path)
    assert all(f"`{name}`" in caught.value.message + str(caught.value.hint) for name in names)
    declared = followed(caught.value)
    assert declared == dict(zip(names, mapping.split(), strict=True))
    found = placed(path, declared)
    assert {code.rsplit(".", 1)[1]: where[-1] for code, where in found.items()} == declared
    places = list(found.values())
    assert len(set(places)) == len(names)  # no two channels are one


def test_mass_positions_logs_and_slow_channels_are_left_out(tmp_path: Path) -> None:
    left = {"VMZ": 1.0, "LCE": 1.0, "VM1": 100.0, "BDF": 20.0, "SOH": 20.0}
    traces = [trace("HHZ"), *(trace(name, rate=rate) for name, rate in left.items())]
    Stream(traces).write(str(tmp_path / "a.mseed"), format="MSEED")
    log = Trace(np.frombuffer(b"Quanterra log" * 9, "S1"), {"station": "AAA", "channel": "HHE", "sampling_rate": 100})
    log.write(str(tmp_path / "log.mseed"), format="MSEED")
    found = Recordings(tmp_path)
    assert placed(tmp_path) == {"XX.AAA..HHZ": "XX.AAA..HH Z"}
    assert found.skipped == {
        "slower than 10 Hz (`VMZ`, `LCE`)": 2,
        "mass position, not ground motion (`VM1`)": 1,
        "pressure, not ground motion (`BDF`)": 1,
        "state of health (`SOH`)": 1,
        "text, not samples (`HHE`)": 1,
    }
    with pytest.raises(VqtoolError, match=r"no seismograms in .* \(1: text, not samples \(`HHE`\)\)"):
        Recordings(tmp_path / "log.mseed")


def test_digits_are_reported_as_assumed(tmp_path: Path) -> None:
    Stream([trace(name) for name in ("BHZ", "BH1", "BH2")]).write(str(tmp_path / "a.mseed"), format="MSEED")
    note = "read 2 channels of unknown azimuth as 1 = N, 2 = E, 3 = Z: `BH1`, `BH2`"
    assert Recordings(tmp_path / "a.mseed").notes == [note]


def test_digits_that_are_dropped_are_in_no_record(tmp_path: Path) -> None:
    Stream([trace(name) for name in ("GPZ", "GP1", "GP4")]).write(str(tmp_path / "a.mseed"), format="MSEED")
    assert placed(tmp_path / "a.mseed", {}) == {"XX.AAA..GPZ": "XX.AAA..GP Z"}
    assert placed(tmp_path / "a.mseed", {"GP4": "E"}) == {
        "XX.AAA..GPZ": "XX.AAA..GP Z", "XX.AAA..GP4": "XX.AAA..GP E", "XX.AAA..GP1": "XX.AAA..GP N"
    }  # fmt: skip


def test_a_mapping_goes_before_the_rules_and_joins_what_is_of_one_instrument(tmp_path: Path) -> None:
    names = ["HHZ", "HHX", "HHY", "HNZ", "HNX", "HNY"]
    Stream([trace(name) for name in names]).write(str(tmp_path / "a.mseed"), format="MSEED")
    found = placed(tmp_path / "a.mseed", {"HHX": "E", "HHY": "N", "HNX": "E", "HNY": "N"})
    assert list(found.values()) == [f"XX.AAA..{name}" for name in ("HH Z", "HH E", "HH N", "HN Z", "HN E", "HN N")]
    assert placed(tmp_path / "a.mseed", {"HHZ": "N"})["XX.AAA..HHZ"] == "XX.AAA..HH N"
    found = Recordings(tmp_path / "a.mseed", {"HHx": "E", "*Y": "N"})
    assert found.notes == ["no channel has these names of `data.components`: `HHx`"]
    assert found.skipped == {"not in `data.components`, and no SEED code of ground motion (`HHX`, `HNX`)": 2}
    with pytest.raises(VqtoolError, match="`HHX` is declared as `X`, which is none of Z, N and E"):
        Recordings(tmp_path / "a.mseed", {"HHX": "X"})


def test_sac_files_without_names_are_mapped_by_their_own(tmp_path: Path) -> None:
    for name in ("one.z", "one.n", "one.e", "two.z"):
        trace("", station="", network="").write(str(tmp_path / f"{name}.sac"), format="SAC")
    with pytest.raises(VqtoolError, match=r"4 channels of .*: `one\.e\.sac`, `one\.n\.sac`") as caught:
        Recordings(tmp_path)
    assert followed(caught.value) == {"one.e.sac": "E", "one.n.sac": "N", "one.z.sac": "Z", "two.z.sac": "Z"}
    assert len(Recordings(tmp_path, followed(caught.value)).stretches) == 2
    found = Recordings(tmp_path, {"*.z.sac": "Z", "*.n.sac": "N", "*.e.sac": "E"})
    assert {(s.station, "".join(sorted(s.components))) for s in found.stretches} == {("one", "ENZ"), ("two", "Z")}
    one = {f"one.{c.lower()}.sac": c for c in "ZNE"}
    (stretch,) = Recordings(tmp_path, one).stretches
    assert (stretch.station, "".join(sorted(stretch.components))) == ("unnamed", "ENZ")


def test_the_direction_in_a_sac_header_is_only_what_the_hint_says(tmp_path: Path) -> None:
    for name, azimuth, inclination in (("Q1", 90, 90), ("Q2", 0, 0), ("Q3", 0, 90)):
        one = trace(name)
        one.stats.sac = {"cmpaz": azimuth, "cmpinc": inclination}
        one.write(str(tmp_path / f"{name}.sac"), format="SAC")
    with pytest.raises(VqtoolError) as caught:
        Recordings(tmp_path)
    assert followed(caught.value) == {"Q1": "E", "Q2": "Z", "Q3": "N"}


def test_a_gather_without_names_is_a_record_for_each_trace(tmp_path: Path) -> None:
    path = tmp_path / "shot.7.segy"
    traces = [Trace(RNG.normal(size=2000).astype(np.float32), {"delta": 0.01, "starttime": START}) for _ in range(3)]
    Stream(traces).write(str(path), format="SEGY", data_encoding=5)
    with pytest.raises(VqtoolError, match=r"1 channel of .*: `shot\.7\.segy`") as caught:
        Recordings(path)
    found = Recordings(path, followed(caught.value))
    assert [stretch.station for stretch in found.stretches] == ["shot_7-1", "shot_7-2", "shot_7-3"]
    for stretch, one in zip(found.stretches, traces, strict=True):
        np.testing.assert_array_equal(found.read(stretch, stretch.begin + 5, 1000, 100.0)[0], one.data[500:1500])


def test_a_thousand_names_are_a_short_message(tmp_path: Path) -> None:
    for number in range(120):
        trace(f"C{number:03d}", seconds=1).write(str(tmp_path / f"{number}{'x' * 150}.slist"), format="SLIST")
    with pytest.raises(VqtoolError) as caught:
        Recordings(tmp_path)
    assert len(caught.value.message + str(caught.value.hint)) < 2000
    assert "120 channels" in caught.value.message
    assert "a `*` in a name stands for any characters" in str(caught.value.hint)
    assert len(Recordings(tmp_path, {"C*": "Z"}).stretches) == 120
    assert len(shown("x" * 10**4)) < 100
    assert shown("a\x00\n") == "`a\\x00\\n`"
    assert listed(map(str, range(10**4))) == "`0`, `1`, `2`, `3`, `4` and 9,995 more"
    assert len(messages.in_brief(["y" * 900] * 10**4)) < 2000
    assert len(messages.in_brackets({f"{n} {'z' * 300}": n for n in range(10**4)})) < 2000
