"""`--plot`: a picture with something in it, and errors that say what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.diagnosis.handmade import codebook, report, rows
from vqtool.diagnosis.pictures import plot
from vqtool.diagnosis.report import Codebook, Finding
from vqtool.errors import VqtoolError

pytest.importorskip("matplotlib")


def colours_in(path: Path) -> int:
    from matplotlib.image import imread

    pixels = imread(path)
    assert min(pixels.shape[:2]) > 300
    return len(np.unique((255 * pixels[::2, ::2, :3]).astype(np.uint8).reshape(-1, 3), axis=0))


def test_a_png_of_a_codec(tmp_path: Path) -> None:
    books = [codebook(f"level{i}", 64, 16, seed=i) for i in range(5)]
    finding = Finding("dead-codes", "warn", 0.3, 0.25, "", "", step=20)
    plot(report(*books, findings=(finding,), history=rows()), tmp_path / "out.png")
    assert colours_in(tmp_path / "out.png") > 100


def test_it_is_drawn_of_next_to_nothing(tmp_path: Path) -> None:
    plot(report(Codebook("codebook", 8, None, None)), tmp_path / "out.svg")
    assert "no training history" in (tmp_path / "out.svg").read_text()


def test_an_ending_that_is_not_a_picture(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="not a picture") as caught:
        plot(report(codebook()), tmp_path / "out.docx")
    assert ".png" in str(caught.value.hint)


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(VqtoolError) as caught:
        plot(report(codebook()), tmp_path / "out.png")
    assert caught.value.hint == "pip install 'vqtool[plot]'"
    assert caught.value.exit_code == 1
