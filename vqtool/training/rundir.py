"""A run's folder: what was asked, what was measured, what came out."""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import vqtool
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.files import write_atomic
from vqtool.forms import RESOLVED, read_json
from vqtool.model import checkpoint
from vqtool.model.format import (
    ENVIRONMENT_FILE,
    METRICS_FILE,
    RECIPE_FILE,
    RESOLVED_FILE,
    RESUME,
    SUMMARY_FILE,
)
from vqtool.model.runs import is_run, rows_of, stage_names
from vqtool.recipe import Recipe, from_resolved
from vqtool.recipe.portable import plain_word
from vqtool.recipe.recipe import read_text
from vqtool.training.lock import LOCK, Lock

BEGUN = (RESOLVED_FILE, RECIPE_FILE, ENVIRONMENT_FILE)  # what a run is made of before it has trained
REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space of your quota",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`)",
}


class RunDir:
    """`runs/<time>-<recipe>-<hash>/`; every write is atomic but for `metrics.jsonl`, which grows by whole lines.

    The rank that writes holds the run's lock until `close`; use it as a context.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.folder = folder
        self.writes = writes  # only rank 0 does
        self.lock: Lock | None = None

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write here."""
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    @classmethod
    def create(cls, recipe: Recipe, folder: Path, *, argv: list[str], device: str, writes: bool = True) -> RunDir:
        """Make the folder and write what was asked for; an existing folder that is not empty is an error.

        What a run left that was stopped before it could save anything does not count.
        """
        run = cls(folder, writes=writes)
        if not writes:
            return run
        run._claim()
        try:
            run.write(RESOLVED_FILE, json.dumps(recipe.resolved(folder), indent=1, sort_keys=True))
            run.write(RECIPE_FILE, recipe.kept_text())
            run.write(ENVIRONMENT_FILE, json.dumps(environment(argv, device), indent=1))
        except VqtoolError:
            run.discard()
            raise
        return run

    def discard(self) -> None:
        """Remove a run that could not begin, unless it has saved something."""
        if self.writes and {file.name for file in self.folder.iterdir()} <= {*BEGUN, LOCK}:
            for name in BEGUN:
                self.path(name).unlink(missing_ok=True)
            self.close()
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def _claim(self) -> None:
        """Make the folder and take its lock, unless something is in it."""
        taken = VqtoolError(
            f"`{self.folder}` exists and is not empty", hint="-o a new folder, or continue with `vqtool resume`"
        )
        if self.folder.exists() and (not self.folder.is_dir() or not unused(self.folder)):
            raise taken
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VqtoolError(f"cannot make `{self.folder}`: {error.strerror}", exit_code=1) from error
        self.lock = Lock(self.folder)
        if not unused(self.folder):  # another process was faster, and has ended
            self.close()
            raise taken
        self.remove_leftovers()

    @classmethod
    def open(cls, folder: Path, *, writes: bool = True) -> RunDir:
        """An existing run, to be written on; what a killed process left half written is removed.

        Raises:
            InUseError: another process writes into it.
        """
        if not is_run(folder):
            raise VqtoolError(f"`{folder}` is not a run: it holds no resolved.json", hint="a folder under runs/")
        run = cls(folder, writes=writes)
        if writes:
            run.lock = Lock(folder)
            run.remove_leftovers()
        return run

    def recipe(self) -> Recipe:
        """The recipe as the run resolved it."""
        try:
            resolved = read_json(self.path(RESOLVED_FILE), RESOLVED)
        except FileNotFoundError as error:
            raise VqtoolError(f"`{self.folder}` is not a run: it holds no resolved.json") from error
        return from_resolved(resolved, text=read_text(self.path(RECIPE_FILE)), beside=self.folder,
                             source=self.path(RESOLVED_FILE))  # fmt: skip

    def path(self, name: str) -> Path:
        """A file of this run."""
        return self.folder / name

    def remove_leftovers(self) -> None:
        """Remove the temporary files of processes that were killed while they wrote one of a run's own files."""
        names = [*BEGUN, METRICS_FILE, SUMMARY_FILE]
        names += [f"{stage}{kind}" for stage in [*stage_names(self.folder), "best", "last", "resume"]
                  for kind in (".safetensors", "-improved.safetensors")]  # fmt: skip
        for file in list(self.folder.iterdir()):
            if leftover(file.name, names):
                file.unlink(missing_ok=True)

    def write(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        if self.writes:
            with self.writing():
                write_atomic(self.path(name), text.encode())

    def save(self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
        """Write a checkpoint, whole or not at all."""
        if self.writes:
            with self.writing():
                checkpoint.save(self.path(name), tensors, metadata)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, an error of the disk says how to go on once it is dealt with."""
        try:
            yield
        except VqtoolError as error:
            if isinstance(error.__cause__, OSError):
                first = REMEDIES.get(error.__cause__.errno or 0, "solve that")
                then = f"run `vqtool resume {self.folder}`" if self.path(RESUME).is_file() else "train again"
                error.hint = f"{first}, then {then}"
            raise

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to `metrics.jsonl`, whole or not at all, and show it to the plugins."""
        if self.writes:
            with self.writing():
                append_line(self.path(METRICS_FILE), json.dumps(row, allow_nan=True))
            catalog().hooks.vqtool_metrics(run=self, row=row)

    def validated(self, validation: Any) -> None:
        """Show a validation to the plugins."""
        if self.writes:
            catalog().hooks.vqtool_validated(run=self, validation=validation)

    def forget_after(self, stage_order: list[str], stage: str, step: int) -> None:
        """Drop rows logged after a position, so that a resumed run's history has each step once.

        A last line that is not whole goes as well.
        """
        file = self.path(METRICS_FILE)
        if not self.writes or not file.exists():
            return
        kept = []
        for row in rows_of(file):
            where = stage_order.index(row["stage"]) if row.get("stage") in stage_order else -1
            if (where, row.get("step", 0)) <= (stage_order.index(stage), step):
                kept.append(json.dumps(row, allow_nan=True) + "\n")
        self.write(METRICS_FILE, "".join(kept))


def new_folder(recipe: Recipe) -> Path:
    """Make the folder that a run is given by default: an empty one that no other process was given."""
    name = recipe.path.stem if recipe.path else "run"
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    digest = hashlib.sha256(json.dumps(recipe.resolved(), indent=1, sort_keys=True).encode()).hexdigest()[:4]
    for number in range(1, 1000):
        folder = Path("runs") / f"{now}-{name}-{digest}{f'-{number}' if number > 1 else ''}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # another run of this very second
            if Path("runs").is_dir():
                continue
            raise VqtoolError("`runs` is not a folder", hint="-o says where else") from None
        except OSError as error:
            raise VqtoolError(f"cannot make `{folder}`: {error.strerror}", exit_code=1) from error
        return folder
    raise VqtoolError("there are a thousand runs of this second already", hint="-o names a folder", exit_code=1)


def unused(folder: Path) -> bool:
    """Whether nothing is in a folder but what a run leaves that never saved."""
    names = {file.name for file in folder.iterdir() if not leftover(file.name, BEGUN)} - {LOCK}
    return not names or (RESOLVED_FILE in names and names <= set(BEGUN))


def leftover(name: str, of: Sequence[str]) -> bool:
    """Whether a file is the temporary one of `write_atomic` for one of the names."""
    found = re.fullmatch(r"\.(.+)\.[A-Za-z0-9_]{8}", name)
    return found is not None and found[1] in {one[:60] for one in of}  # it cuts long names


def append_line(file: Path, line: str) -> None:
    """Append a line; where that fails, the file is as before."""
    before = None
    try:
        with file.open("ab", buffering=0) as opened:
            before = opened.tell()
            content = memoryview((line + "\n").encode())
            while content:
                content = content[opened.write(content) :]
    except OSError as error:
        if before is not None:
            with contextlib.suppress(OSError):
                os.truncate(file, before)
        raise VqtoolError(f"cannot write `{file}`: {error.strerror}", exit_code=1) from error


def environment(argv: list[str], device: str) -> dict[str, Any]:
    """What the run depends on beside the recipe."""
    return {
        "vqtool": vqtool.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
        "plugins": plugin_versions(),
        "argv": [plain_word(word) for word in argv or sys.argv[1:]],
        "world": int(os.environ.get("WORLD_SIZE", "1")),
    }


def plugin_versions() -> dict[str, str]:
    """Each plugin's name, and the distribution and version it comes with ("a file" for one of --plugin)."""
    return {plugin.name: plugin.provider if plugin.version else "a file" for plugin in catalog().plugins}
