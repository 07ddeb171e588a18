"""A sweep's points as lines, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqtool.commands.sweep import draw, draw_axes, lines_of, parse_sweep
from vqtool.errors import VqtoolError

POINTS = [
    {
        "value": value,
        "model": {"accuracy.hard": 0.5 + value / 20, "accuracy.hard.3db": 0.6, "accuracy.no-channel": 0.9, "ber": 0.1},
        "baselines": {"pixels": {"accuracy.hard": 0.4, "other": 1.0}},
    }
    for value in (0.0, 3.0, 6.0)
]


def test_the_end_is_included() -> None:
    assert parse_sweep("channel.snr_db=0:18:3") == ("channel.snr_db", [0, 3, 6, 9, 12, 15, 18])
    assert parse_sweep("a=1:0:-0.5") == ("a", [1, 0.5, 0])
    for bad in ("a", "a=1:2", "a=1:2:0", "a=0:1:-1", "a=x:1:1", "a=0:inf:1", "a=0:1e9:1", "a=nan:1:1"):
        with pytest.raises(VqtoolError):
            parse_sweep(bad)


def test_a_figure_at_a_fixed_level_is_left_out_beside_the_one_that_moves() -> None:
    lines = lines_of(POINTS)
    assert set(lines) == {"accuracy.hard", "accuracy.no-channel", "ber", "pixels: accuracy.hard"}
    assert lines["accuracy.hard"] == pytest.approx([0.5, 0.65, 0.8])
    assert lines["pixels: accuracy.hard"] == [0.4, 0.4, 0.4]


def test_a_picture_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(tmp_path / "sweep.png", "channel.snr_db", POINTS)
    assert (tmp_path / "sweep.png").read_bytes()[:4] == b"\x89PNG"


def test_one_metric_over_another(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_axes(tmp_path / "curve.png", "ber, accuracy.hard", POINTS)
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    for bad in ("ber", "ber,none", "ber,accuracy.hard,ber"):
        with pytest.raises(VqtoolError, match="does not name two figures"):
            draw_axes(tmp_path / "bad.png", bad, POINTS)
    assert not (tmp_path / "bad.png").exists()
