"""Runs as folders on disk: which there are, their stages, and the checkpoint that is a run's result; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vqtool.untrusted import json_value

BEST, LAST = "best.safetensors", "last.safetensors"
RECORDS = ("recipe.toml", "resolved.json", "environment.json", "metrics.jsonl", "summary.json")


def runs_newest_first(root: Path = Path("runs")) -> Iterator[Path]:
    """The runs under `root`, the newest first."""
    if root.is_dir():
        folders = [f for f in root.iterdir() if (f / "resolved.json").is_file() and not f.is_symlink()]
        yield from sorted(folders, key=lambda f: (f.stat().st_mtime, f.name), reverse=True)


def stage_names(run: Path) -> list[str]:
    """The names of a run's stages, in order; none if its `resolved.json` cannot be read."""
    try:
        return [stage["name"] for stage in json_value((run / "resolved.json").read_bytes())["stages"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def own_files(run: Path) -> list[Path]:
    """The files that make a folder a run; none where it is not one."""
    if not (run / "resolved.json").is_file():
        return []
    weights = [f"{name}.safetensors" for name in (*stage_names(run), "resume")]
    return [run / name for name in (*RECORDS, BEST, LAST, *weights)]


def newest_in(run: Path) -> Path | None:
    """A run's result: the checkpoint of its last finished stage, else the best so far."""
    for name in [*(f"{stage}.safetensors" for stage in reversed(stage_names(run))), BEST, LAST]:
        if (run / name).is_file():
            return run / name
    return None
