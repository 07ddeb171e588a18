"""Runs as folders on disk: which there are, their stages, and the checkpoint that is a run's result; needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vqtool.errors import VqtoolError
from vqtool.forms import ANY, RESOLVED, ROW, damaged, misfit, read_json
from vqtool.untrusted import json_value

BEST, LAST = "best.safetensors", "last.safetensors"
STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # it names files
RECORDS = ("recipe.toml", "resolved.json", "environment.json", "metrics.jsonl", "summary.json")


def runs_newest_first(root: Path = Path("runs")) -> Iterator[Path]:
    """The runs under `root`, the newest first."""
    if root.is_dir():
        folders = [f for f in root.iterdir() if (f / "resolved.json").is_file() and not f.is_symlink()]
        yield from sorted(folders, key=lambda f: (f.stat().st_mtime, f.name), reverse=True)


def stage_names(run: Path) -> list[str]:
    """The names of a run's stages, in order; none without a `resolved.json`.

    Raises:
        VqtoolError: it is damaged.
    """
    path = run / "resolved.json"
    try:
        names = [stage["name"] for stage in read_json(path, RESOLVED)["stages"]]
    except FileNotFoundError:
        return []
    for name in names:
        if not STAGE_NAME.fullmatch(name):
            raise damaged(path, f"a stage cannot be called `{name[:80]}`")
    return names


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


def rows_of(metrics: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a line that is not whole, as of a run that was killed, is left out.

    Raises:
        VqtoolError: it cannot be read, or a line is whole but cannot be a row.
    """
    try:
        lines = metrics.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise VqtoolError(f"cannot read `{metrics}`: {error.strerror or error}", exit_code=1) from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json_value(line)
        except ValueError:
            continue
        wrong = misfit(row, ROW) or misfit(row, {str: ANY})
        if wrong is not None:
            raise damaged(metrics, f"in line {number}, {wrong}")
        rows.append(row)
    return rows
