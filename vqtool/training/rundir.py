"""A run's folder: what was asked, what was measured, what came out."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import vqtool
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.files import cannot_write, make_dir, write_atomic
from vqtool.recipe import Recipe
from vqtool.recipe.portable import plain_word
from vqtool.untrusted import json_value


class RunDir:
    """`runs/<time>-<recipe>-<hash>/`; every write is atomic but for `metrics.jsonl`, which grows by whole lines."""

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.folder = folder
        self.writes = writes  # only rank 0 does

    @classmethod
    def create(
        cls, recipe: Recipe, folder: Path | None, *, argv: list[str], device: str, writes: bool = True
    ) -> RunDir:
        """Make the folder and write what was asked for; an existing folder that is not empty is an error."""
        resolved = json.dumps(recipe.resolved(), indent=1, sort_keys=True)
        if folder is None:
            name = recipe.path.stem if recipe.path else "run"
            now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            digest = hashlib.sha256(resolved.encode()).hexdigest()[:4]
            folder = Path("runs") / f"{now}-{name}-{digest}"
            for number in range(2, 100):  # another run of this very second
                if not folder.exists():
                    break
                folder = Path("runs") / f"{now}-{name}-{digest}-{number}"
        run = cls(folder, writes=writes)
        if not writes:
            return run
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise VqtoolError(
                f"`{folder}` exists and is not empty", hint="-o a new folder, or `vqtool resume` to go on"
            )
        make_dir(folder)
        run.write("recipe.toml", recipe.kept_text())
        run.write("resolved.json", json.dumps(recipe.resolved(folder), indent=1, sort_keys=True))
        run.write("environment.json", json.dumps(environment(argv, device), indent=1))
        return run

    @classmethod
    def open(cls, folder: Path, *, writes: bool = True) -> RunDir:
        """An existing run."""
        if not (folder / "resolved.json").is_file():
            raise VqtoolError(f"`{folder}` is no run: it holds no resolved.json", hint="a folder under runs/")
        return cls(folder, writes=writes)

    def path(self, name: str) -> Path:
        """A file of this run."""
        return self.folder / name

    def write(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        if self.writes:
            write_atomic(self.path(name), text.encode())

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to `metrics.jsonl` and show it to the plugins."""
        if self.writes:
            try:
                with self.path("metrics.jsonl").open("a") as file:
                    file.write(json.dumps(row, allow_nan=True) + "\n")
            except OSError as error:
                then = f"then `vqtool resume {self.folder}`"
                raise cannot_write(self.path("metrics.jsonl"), error, then) from error
            catalog().hooks.vqtool_metrics(run=self, row=row)

    def forget_after(self, stage_order: list[str], stage: str, step: int) -> None:
        """Drop rows logged after a position, so that a resumed run's history has each step once."""
        file = self.path("metrics.jsonl")
        if not self.writes or not file.exists():
            return
        kept = []
        for line in file.read_text().splitlines():
            row = json_value(line)
            where = stage_order.index(row["stage"]) if row.get("stage") in stage_order else -1
            if (where, row.get("step", 0)) <= (stage_order.index(stage), step):
                kept.append(line + "\n")
        write_atomic(file, "".join(kept).encode())


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
