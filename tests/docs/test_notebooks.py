"""The notebooks run from their first cell to the last, and what they show came from a whole run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
SHORT = {  # what makes them short here
    "STEPS = 300": "STEPS = 8",
    "STEPS = 600": "STEPS = 60",
    "--out runs/mine": "--out runs/mine -s stage.quantiles.steps=3",
    "--n-windows 5": "--n-windows 1",
}


def notebook(path: Path) -> Any:
    """A notebook as it is stored."""
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cells = notebook(path)
    for cell in cells.cells:
        for long, short in SHORT.items():
            cell.source = cell.source.replace(long, short)
    NotebookClient(cells, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(o.get("text", "") for c in cells.cells if c.cell_type == "code" for o in c.outputs)
    assert "error: " not in printed  # of a command


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_it_printed(path: Path) -> None:
    code = [cell for cell in notebook(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum(bool(cell.outputs) for cell in code) > 2
    text = path.read_text(encoding="utf-8")
    assert "Traceback" not in text
    assert len(text) < 2_000_000


def test_there_are_four() -> None:
    assert len(NOTEBOOKS) == 4
