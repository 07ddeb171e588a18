"""The codec that comes along: found without a name, small, documented, and close to what it coded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import vqtool
from tests.cli.run import within
from tests.speech.sounds import voice

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_codes_a_file_on_a_fresh_machine_and_says_which_model_it_is(tmp_path: Path) -> None:
    x = 0.3 * voice(2.1, 22_050, seed=3)
    soundfile.write(tmp_path / "speech.wav", x, 22_050)
    done = within("encode", "speech.wav", "--out", "x.vqc")
    assert "taking `codec`, which comes with vqtool" in done.stderr
    assert within("decode", "x.vqc", "--out", "back.wav").returncode == 0
    y, rate = soundfile.read(tmp_path / "back.wav")
    assert (rate, len(y)) == (22_050, len(x))
    assert float(x @ y) / float(x @ x) == pytest.approx(1, abs=0.1)  # level and polarity
    assert within("encode", "codec", "speech.wav", "--out", "named.vqc").returncode == 0
    assert (tmp_path / "named.vqc").read_bytes() == (tmp_path / "x.vqc").read_bytes()  # of another process


def test_fewer_levels_are_a_lower_rate_and_a_coarser_sound(tmp_path: Path) -> None:
    clip = sorted((RECIPES / "data" / "telugu_cv_16k").glob("*.flac"))[4]  # held out
    x, _ = soundfile.read(clip)
    away, sizes = [], []
    for levels in (5, 8):
        assert within("encode", str(clip), "--out", f"{levels}.vqc", "--levels", str(levels)).returncode == 0
        assert within("decode", f"{levels}.vqc", "--out", f"{levels}.wav").returncode == 0
        y, _ = soundfile.read(tmp_path / f"{levels}.wav")
        away.append(10 * np.log10(np.square(x).sum() / np.square(x - y).sum()))
        sizes.append((tmp_path / f"{levels}.vqc").stat().st_size)
    assert away[0] > 12
    assert away[1] > 27
    assert sizes[0] < 0.4 * sizes[1]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("encode --out x.vqc", "a file is needed", "vqtool encode FILE"),
        ("decode --out x.wav", "a file is needed", "vqtool decode FILE"),
        ("encode codec --out x.vqc", "a file is needed", "vqtool encode codec FILE"),
        ("encode speech.wav codec --out x.vqc", "`codec` is a model", "vqtool encode codec speech.wav"),
    ],
)
def test_a_file_must_be_named_after_the_model(words: str, message: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "speech.wav").touch()
    done = within(*words.split())
    assert done.returncode == 2
    assert message in done.stderr
    assert hint in done.stderr


def test_it_is_small_and_says_where_it_comes_from() -> None:
    path = vqtool.load("codec").path
    assert path is not None
    assert path.stat().st_size <= 5_000_000
    card = (path.parent / "README.md").read_text(encoding="utf-8")
    assert "CC0-1.0" in card
    assert "Telugu" in card
