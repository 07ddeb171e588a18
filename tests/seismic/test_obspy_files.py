"""Every small file among the tests of ObsPy's own wheel, of all formats: read rightly, or one clear error."""

from __future__ import annotations

import re
import shlex
import tomllib
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import obspy
import pytest

from vqtool.errors import VqtoolError
from vqtool_seismic.obspy_files import UNKNOWN
from vqtool_seismic.recordings import Recordings

ROOT = Path(obspy.__file__).parent
FILES = sorted(path for path in ROOT.rglob("tests/data/**/*") if path.is_file())
LARGEST = 2_000_000  # bytes
SURE = re.compile(r"[A-Z][HLGNP]([ZNE])|(EW|NS|UD)\d?")
LETTER = {"EW": "E", "NS": "N", "UD": "Z"}


def read(path: Path, declared: dict[str, str] | None = None) -> Recordings:
    """The records of a file, with some samples of each, and what must stand of any."""
    found = Recordings(path, declared)
    for parts in found.parts.values():
        assert all(part.rate >= 10 and part.begin <= part.end for part in parts)
    for stretch in found.stretches[:20]:
        samples = found.read(stretch, stretch.begin, min(stretch.samples, 500), stretch.rate)
        assert samples.shape == (3, min(stretch.samples, 500))
        assert np.isfinite(samples).all()
    assert all(len(text) < 2000 for text in [*found.notes, *found.skipped])
    return found


def check_components(found: Recordings) -> None:
    """Without a mapping a component is what a SEED code or the compass says, or an assumption that is reported."""
    for part in (part for parts in found.parts.values() for part in parts):
        name = part.code.rsplit(".", 1)[1].strip()
        sure = SURE.fullmatch(name)
        if sure:
            assert part.component == (sure[1] or LETTER[sure[2]])
        else:
            assert re.fullmatch(r"[A-Z][HLGNP][123]", name), name
            assert any(name in note for note in found.notes if "of unknown azimuth" in note), name


def check_error(path: Path, error: VqtoolError) -> str:
    """One error of a few lines; a mapping in its hint is followed."""
    assert len(error.message) + len(error.hint or "") < 2000
    assert error.hint
    assert error.exit_code == 2
    setting = re.match(r"-s ('[^']*'|\S+) if ", error.hint)
    if "cannot tell which component" not in error.message:
        assert setting is None
        return "not known" if UNKNOWN in error.message else "refused"
    assert setting
    declared = tomllib.loads(shlex.split(setting[1])[0].removeprefix("data."))["components"]
    try:
        found = read(path, declared)
    except VqtoolError as second:
        if re.search("no samples|is constant", second.message):  # nobody could read more
            return "mapped, but empty"
        raise
    for part in (part for parts in found.parts.values() for part in parts):
        name = part.code.rsplit(".", 1)[1].strip() or path.name
        assert part.component == declared.get(name, part.component)
    return "mapped"


@pytest.mark.skipif(len(FILES) < 600, reason="this ObsPy came without its test files")
def test_all_formats(capfd: pytest.CaptureFixture[str]) -> None:
    small = [path for path in FILES if path.stat().st_size <= LARGEST]
    assert len(small) > 0.98 * len(FILES)
    outcomes: Counter[str] = Counter()
    with warnings.catch_warnings(action="error"):
        for path in small:
            try:
                found = read(path)
            except VqtoolError as error:
                outcomes[check_error(path, error)] += 1
            else:
                check_components(found)
                outcomes["read"] += 1
    print(f"{len(small)} of {len(FILES)} files: {dict(outcomes)}")
    assert outcomes["read"] > 80
    assert outcomes["mapped"] > 40
    assert outcomes["mapped, but empty"] < 5
    assert outcomes.total() == len(small)
    captured = capfd.readouterr()
    assert "arning" not in captured.err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("io/nied/tests/data/test.knet", {"BO.AKT013..EW": "E"}),
        ("io/css/tests/data/test_css.wfdisc", {f".TEST{order}..HH{c}": c for order in ("be", "le") for c in "ZNE"}),
        ("io/gcf/tests/data/20160603_1955n.gcf", {".6018..HHN": "N"}),
        ("io/alsep/tests/data/pse.a14.4.171.mini", {"XA.S14..SPZ": "Z"}),  # beside gravity, temperature and tides
        ("io/xseed/tests/data/II_COCO_three_channel_borehole.mseed",
         {"II.COCO.10.BH1": "N", "II.COCO.10.BH2": "E", "II.COCO.10.BHZ": "Z"}),
    ],
)  # fmt: skip
def test_some_that_are_known(name: str, expected: dict[str, str]) -> None:
    if not (ROOT / name).is_file():
        pytest.skip("this ObsPy came without its test files")
    found = Recordings(ROOT / name)
    assert {part.code: part.component for parts in found.parts.values() for part in parts} == expected


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("io/win/tests/data/10030302.00", "`a100`, `a101`"),
        ("io/rg16/tests/data/one_channel_many_traces.fcnt", "`DP3`"),
        ("io/reftek/tests/data/225051000_00008656", "`EH0`, `EH1`, `EH2`"),
        ("io/reftek/tests/data/2015282_225051_0ae4c_1_1.msd", "`001`"),
        ("io/kinemetrics/tests/data/BI008_MEMA-04823.evt", "`0`, `1`, `2`"),
        ("io/alsep/tests/data/wth.1.5.mini", "`GP1`, `GP2`, `GP3`, `GP4`"),
        ("io/segy/tests/data/1.sgy_first_trace", "`1.sgy_first_trace`"),
        ("io/sac/tests/data/seism.sac", "`Q`"),
        ("io/y/tests/data/YAZRSPE.20100119.060433", "`E`"),
    ],
)
def test_some_that_nobody_can_know(name: str, names: str) -> None:
    if not (ROOT / name).is_file():
        pytest.skip("this ObsPy came without its test files")
    with pytest.raises(VqtoolError, match="cannot tell which component") as caught:
        Recordings(ROOT / name)
    assert caught.value.message.endswith(f": {names}")
