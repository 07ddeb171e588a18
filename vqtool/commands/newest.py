"""Which checkpoint a command takes: the given one, a run's newest, or the newest run's; needs no torch."""

from __future__ import annotations

from pathlib import Path

from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.runs import newest_in, runs_newest_first


def checkpoint_path(given: Path | None) -> Path:
    """A checkpoint file: the given one, a run's newest, or the newest run's; a choice that was not asked is said."""
    if given is not None and given.is_file():
        return given
    if given is not None and not given.exists():
        raise VqtoolError(f"there is no checkpoint or run `{given}`", hint="vqtool show RUN lists a run's files")
    folders = [given] if given is not None else list(runs_newest_first())
    for folder in folders:
        try:
            path = newest_in(folder)
        except VqtoolError as error:
            if given is not None:
                raise
            out.warn(f"passing over {folder}: {error.message}")
            continue
        if path is not None:
            if given is None:
                out.say(f"taking the newest run: {path}")
            return path
    raise VqtoolError("there is no trained run" + (f" in `{given}`" if given else " under `runs/`"),
                      hint="vqtool train RECIPE")  # fmt: skip
