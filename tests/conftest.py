"""What all tests share: few, repeatable hypothesis examples, one thread, a catalog of its own, and the toy plugin."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from vqtool.catalog import discovery
from vqtool.console import out

hypothesis.settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci")

# It draws pictures at every validation, three quarters of the time of a short training: on in tests/tensorboard alone.
os.environ.setdefault("VQTOOL_PLUGINS", "-tensorboard")

with contextlib.suppress(ImportError):
    import torch

    torch.set_num_threads(1)
    if not torch.cuda.is_available():  # before anything imports Triton: see test_kernels.py; a GPU compiles for itself
        os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def fresh_catalog(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A catalog that is made anew for the test, and again after it."""
    monkeypatch.setattr(discovery, "_found", None)
    monkeypatch.setattr(discovery, "_files", ())
    yield
    discovery._found = None


@pytest.fixture(autouse=True)
def _human_output() -> Iterator[None]:
    """Every test begins with output for people."""
    out.mode, out.muted = "human", False
    yield
    out.mode, out.muted = "human", False


def distribution(folder: Path, name: str, entries: dict[str, str], requires: tuple[str, ...] = ()) -> None:
    """Make `folder` look like a place where a distribution with these entry points is installed."""
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n{needs}")
    lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
    (info / "entry_points.txt").write_text(f"[vqtool]\n{lines}")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_catalog: None) -> None:
    """The plugin `toy` of tests/toy, installed for this test alone."""
    distribution(tmp_path / "site", "vqtool-toy", {"toy": "vqtool_toy"})
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "toy"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("VQTOOL_PLUGINS", "toy")


@pytest.fixture
def forget_modules() -> Iterator[None]:
    """Modules that the test imports are forgotten after it."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0].startswith(("plug", "vqtool_file_")):
            del sys.modules[name]
