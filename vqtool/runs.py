"""Runs as folders on disk: which there are, their stages, and the checkpoint that is a run's result; needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BEST, LAST = "best.safetensors", "last.safetensors"


def runs_newest_first(root: Path = Path("runs")) -> Iterator[Path]:
    """The runs under `root`, the newest first."""
    if root.is_dir():
        folders = [f for f in root.iterdir() if (f / "resolved.json").is_file() and not f.is_symlink()]
        yield from sorted(folders, key=lambda f: (f.stat().st_mtime, f.name), reverse=True)


def stage_names(run: Path) -> list[str]:
    """The names of a run's stages, in order; none if its `resolved.json` cannot be read."""
    try:
        return [stage["name"] for stage in json.loads((run / "resolved.json").read_text(encoding="utf-8"))["stages"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def newest_in(run: Path) -> Path | None:
    """A run's result: the checkpoint of its last finished stage, else the best so far."""
    for name in [*(f"{stage}.safetensors" for stage in reversed(stage_names(run))), BEST, LAST]:
        if (run / name).is_file():
            return run / name
    return None


def rows_of(metrics: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a line that is not whole, as of a run that was killed, is left out."""
    try:
        lines = metrics.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    return [row for row in map(_row, lines) if isinstance(row, dict)]


def _row(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
