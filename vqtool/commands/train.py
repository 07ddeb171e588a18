"""`vqtool train` and `vqtool resume`: run a recipe's stages, then show the held-out figures beside the baselines."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from vqtool.console import out
from vqtool.diagnosis.news import StopOn
from vqtool.errors import VqtoolError
from vqtool.model.build import stage_named
from vqtool.model.format import RESUME
from vqtool.model.runs import checkpoint_path, is_run, pretrained, runs_newest_first
from vqtool.recipe import Recipe, load
from vqtool.recipe.recipe import apply_to_resolved
from vqtool.tables import show_splits
from vqtool.training.lock import InUseError
from vqtool.training.rundir import RunDir, new_folder
from vqtool.training.runtime import Runtime, Signals, runtime
from vqtool.training.session import Session
from vqtool.training.session import resume as resume_session


def run(
    *,
    recipe: Path | None,
    overrides: list[str],
    out_dir: Path | None,
    seed: int | None,
    device: str,
    stage: str | None,
    only: bool = False,
    start: Path | None = None,
    fresh: list[str] | None = None,
    stop_on: StopOn | None = None,
) -> int:
    """Train every stage (or those up to and with `stage`), from the checkpoint `start`; returns the exit code.

    With `only`, `stage` alone is trained. Parts of the roles `fresh` start anew.
    """
    if only and (stage is None or start is None):
        raise VqtoolError("`--only` trains one stage of a trained model: `--stage` and `--from` name them",
                          hint="vqtool train RECIPE --stage NAME --only --from CKPT")  # fmt: skip
    if fresh and start is None:
        raise VqtoolError("`--fresh` names parts that `--from` should not fill, and there is no `--from`")
    if recipe is None:
        recipe = own_recipe(start)
    if seed is not None:
        overrides = [*overrides, f"seed={seed}"]
    loaded = apply_to_resolved(RunDir(recipe).recipe(), overrides) if is_run(recipe) else load(recipe, overrides)
    if stage is not None:
        stage_named(loaded, stage)
    learned = None if start is None else checkpoint_path(start)
    began = time.perf_counter()
    with runtime(device) as here, created(loaded, out_dir, here) as folder:
        for warning in loaded.warnings():
            out.warn(warning)
        out.say(f"run {folder.folder} on {here.device}" + (f", {here.world} ranks" if here.world > 1 else ""))
        try:
            session = Session(loaded, folder, here, stop_on=stop_on)
            session.start(learned, fresh=fresh or ())
        except BaseException:
            folder.discard()
            raise
        stopped = session.train(until=stage, only=only)
        return _end(session, stopped, began, stage, here)


def own_recipe(start: Path | None) -> Path:
    """The recipe that comes with a model of vqtool's to train on.

    Raises:
        VqtoolError: `start` is not the name of one.
    """
    known = {one.name: one.recipe for one in pretrained()}
    if start is not None and str(start) in known:
        return known[str(start)]
    if start is not None:
        checkpoint_path(start)  # which may not be there
    names = "".join(f", or --from {name}" for name in known)
    raise VqtoolError("which recipe should be trained?", hint=f"vqtool train RECIPE{names}")


def created(recipe: Recipe, folder: Path | None, here: Runtime) -> RunDir:
    """A new run; rank 0 makes its folder."""
    if folder is None:
        folder = here.broadcast_path(new_folder(recipe) if here.is_main else None)
        assert folder is not None  # rank 0 gave one
    here.serve(folder)
    return RunDir.create(recipe, folder, argv=sys.argv[1:], device=str(here.device), writes=here.is_main)


def resume(
    *, run: Path | None, device: str, stop_on: StopOn | None = None, force: bool = False, data: Path | None = None
) -> int:
    """Go on where a run stopped; by default the newest that can be resumed and is not in use."""
    began = time.perf_counter()
    with runtime(device) as here, opened(run, here) as folder:
        session, state = resume_session(folder, here, stop_on=stop_on, force=force, data=data)
        stopped = session.train(state=state)
        return _end(session, stopped, began, None, here)


def opened(run: Path | None, here: Runtime) -> RunDir:
    """The run to resume; rank 0 holds its lock, and chooses where none is named."""
    mine = (newest_resumable() if run is None else RunDir.open(run)) if here.is_main else None
    folder = here.broadcast_path(mine.folder if mine is not None else None)
    assert folder is not None  # rank 0 has one
    here.serve(folder)
    return mine if mine is not None else RunDir.open(folder, writes=False)


def newest_resumable() -> RunDir:
    """The newest run under `runs/` that has something to resume; those in use are skipped and named."""
    used = 0
    for folder in runs_newest_first():
        if (folder / RESUME).is_file():
            try:
                return RunDir.open(folder)
            except InUseError as error:
                out.say(f"{error.message}: skipped")
                used += 1
    raise VqtoolError("no run under `runs/` has anything to resume" + (f" but {used} in use" if used else ""),
                      hint="vqtool resume RUN")  # fmt: skip


def _end(session: Session, stopped: int, began: float, stage: str | None, here: Runtime) -> int:
    """Report a stop or the held-out figures."""
    folder = session.run_dir.folder
    if stopped:
        out.say(f"stopped and saved; continue with `vqtool resume {folder}`")
        return 128 + stopped
    with Signals(at_once=True) as signals:
        try:
            document = session.finish(seconds=time.perf_counter() - began, until=stage)
        except KeyboardInterrupt:
            out.say(f"stopped while evaluating; continue with `vqtool resume {folder}`")
            return 128 + (signals.received or signal.SIGINT)
    if here.is_main:
        show_splits(document["splits"])
        out.say(f"{document['seconds']:.0f} s; {document['checkpoint']}")
        out.print(document["checkpoint"])
        out.document(document)
    return 0
