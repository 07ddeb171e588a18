"""Whether a plot can be drawn is known before anything is computed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vqtool.diagnosis import plotting
from vqtool.errors import VqtoolError


def test_an_unknown_ending_is_refused_first() -> None:
    with pytest.raises(VqtoolError, match="can be drawn"):
        plotting.check(Path("sweep.gif"))


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(VqtoolError, match="matplotlib") as caught:
        plotting.check(Path("sweep.png"))
    assert "vqtool[plot]" in (caught.value.hint or "")
