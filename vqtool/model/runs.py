"""Runs as folders on disk: which there are, their stages, and the checkpoint that is a run's result; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vqtool.catalog import catalog
from vqtool.catalog.pretrained import Pretrained
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.forms import RESOLVED, damaged, misfit, read_json
from vqtool.model.format import (
    BEST,
    ENVIRONMENT_FILE,
    LAST,
    METRICS_FILE,
    RECIPE_FILE,
    RESOLVED_FILE,
    RESUME,
    SUMMARY_FILE,
    stage_file,
)
from vqtool.suggest import did_you_mean
from vqtool.untrusted import json_value

RECORDS = (RECIPE_FILE, RESOLVED_FILE, ENVIRONMENT_FILE, METRICS_FILE, SUMMARY_FILE)
SUMMARY = {
    "checkpoint?": str,
    "seconds?": float,
    "stages?": [dict],
    "splits": {str: {"model": {str: (float, None)}, "baselines": {str: {str: (float, None)}}}},
}
ENVIRONMENT = {"plugins?": {str: str}}
ROW = {"stage?": str, "step": int, "split?": str}  # of metrics.jsonl
ANY = (float, bool, str, list, dict, None)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / RESOLVED_FILE).is_file()


def runs_newest_first(root: Path = Path("runs")) -> Iterator[Path]:
    """The runs under `root`, the newest first."""
    if root.is_dir():
        folders = [f for f in root.iterdir() if is_run(f) and not f.is_symlink()]
        yield from sorted(folders, key=lambda f: (f.stat().st_mtime, f.name), reverse=True)


def stage_names(run: Path) -> list[str]:
    """The names of a run's stages, in order; none where the folder is not a run.

    Raises:
        VqtoolError: its resolved recipe is damaged.
    """
    try:
        return [stage["name"] for stage in read_json(run / RESOLVED_FILE, RESOLVED)["stages"]]
    except FileNotFoundError:
        return []


def own_files(run: Path) -> list[Path]:
    """The files that make a folder a run; none where it is not one."""
    if not is_run(run):
        return []
    return [run / name for name in (*RECORDS, BEST, LAST, RESUME, *map(stage_file, stage_names(run)))]


def newest_in(run: Path) -> Path | None:
    """A run's result: the checkpoint of its last finished stage, else the best so far."""
    names = [*map(stage_file, reversed(stage_names(run))), BEST, LAST]
    return next((run / name for name in names if (run / name).is_file()), None)


def is_model(path: Path) -> bool:
    """Whether a path is that of a run or of a checkpoint in one, or the name of a model that comes with vqtool."""
    named = not path.exists() and any(one.name == str(path) for one in pretrained())
    return named or is_run(path) or (path.is_file() and path in own_files(path.parent))


def checkpoint_path(given: Path | None) -> Path:
    """A checkpoint file: the given one, that of the given run, or that of the newest run, which is then reported."""
    if given is None:
        path = next(newest_checkpoints(), None)
        if path is None:
            raise VqtoolError("there is no trained run under `runs/`", hint="vqtool train RECIPE")
        out.say(f"taking the newest run: {path}")
        return path
    if given.is_file():
        return given
    if not given.exists():
        known = {one.name: one.weights for one in pretrained()}
        if str(given) in known:
            return known[str(given)]
        names = f", or a model that comes with vqtool: {', '.join(known)}" if known else ""
        beside = (str(path) for folder in {given.parent, Path("runs")} if folder.is_dir() for path in folder.iterdir())
        hint = did_you_mean(
            str(given), [*known, *beside], otherwise=f"a .safetensors file, a folder under runs/{names}"
        )
        raise VqtoolError(f"there is no checkpoint or run `{given}`", hint=hint)
    path = newest_in(given)
    if path is None:
        raise VqtoolError(f"there is no trained run in `{given}`", hint="vqtool train RECIPE")
    return path


def pretrained() -> list[Pretrained]:
    """The trained models that come with vqtool and its plugins."""
    return catalog().hooks.collect("vqtool_pretrained", Pretrained)


def newest_checkpoints() -> Iterator[Path]:
    """The results of the runs under `runs/`, the newest first; runs that are damaged are skipped with a warning."""
    for folder in runs_newest_first():
        try:
            path = newest_in(folder)
        except VqtoolError as error:
            out.warn(f"skipping {folder}: {error.message}")
            continue
        if path is not None:
            yield path


def rows_of(metrics: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; incomplete lines, as of a run that was killed, are left out.

    Raises:
        VqtoolError: the file cannot be read, or a complete line cannot be a row.
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
