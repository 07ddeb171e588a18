"""A whole training run: every stage in order, saving and resuming, and the figures at the end."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

import vqtool
from vqtool.api.data import Data
from vqtool.catalog import catalog
from vqtool.console import out
from vqtool.diagnosis.news import StopOn, UnhealthyError
from vqtool.errors import VqtoolError
from vqtool.model import checkpoint
from vqtool.model.bounds import rebuilding
from vqtool.model.build import build, fit_parts, stage_named
from vqtool.model.data import open_data, with_data
from vqtool.model.format import BEST, LAST, RESUME, SUMMARY_FILE, Header, stage_file
from vqtool.model.load import restore
from vqtool.model.model import Model
from vqtool.model.runs import pretrained
from vqtool.model.warm_start import warm_start
from vqtool.recipe import Recipe, StageSpec
from vqtool.training.batches import Batches
from vqtool.training.evaluate import evaluate
from vqtool.training.fingerprint import changes, fingerprint
from vqtool.training.foresight import check_stages
from vqtool.training.loop import StageLoop
from vqtool.training.rundir import RunDir, plugin_versions
from vqtool.training.runtime import Runtime, Signals, deterministic
from vqtool.training.starting import start_codebooks
from vqtool.training.state import load_state, save_state

Status = Literal["done", "interrupted", "failed"]


class Session:
    """Trains the stages of one recipe into one run folder."""

    def __init__(self, recipe: Recipe, run: RunDir, runtime: Runtime, *, stop_on: StopOn | None = None,
                 header: Header | None = None) -> None:  # fmt: skip
        self.recipe, self.run_dir, self.runtime, self.stop_on = recipe, run, runtime, stop_on
        for stage in recipe.stages:
            runtime.require(stage.train)
        deterministic(recipe.deterministic)
        kind: type[Data] = catalog().load("data", recipe.data.kind)
        self.files = fingerprint(recipe.data.options, kind.files.inputs)  # before they are read
        self.data: Data = open_data(recipe)
        with rebuilding(run.folder, header) if header is not None else contextlib.nullcontext():
            self.model: Model = build(recipe, self.data.spec)
        self.done: list[dict[str, Any]] = []
        self.learned: list[str] = []  # roles of the parts that another run's checkpoint filled
        self.started_from: dict[str, str] = {}  # that checkpoint, as the run's own ones name it; see `start`
        self.order = [stage.name for stage in recipe.stages]

    def start(self, learned: Path | None = None, *, fresh: Collection[str] = ()) -> None:
        """Take the constants of the parts from the training rows, and what parts learned before from a checkpoint.

        Only at the very beginning of a run. Parts of the roles `fresh` take nothing from the checkpoint.
        """
        fit_parts(self.model, self.data)
        if learned is not None:
            own = next((one.name for one in pretrained() if one.weights == learned), None)
            self.started_from = {"started_from": own or learned.name}
            taken = self.learned = warm_start(self.model, checkpoint.load(learned), str(learned), exclude=fresh)
            new = [f"[{role}]" for role, part in self.model.parts.items() if part.state_dict() and role not in taken]
            out.say(f"from {own or learned}: {', '.join(f'[{role}]' for role in taken)}"
                    + (f"; new: {', '.join(new)}" if new else ""))  # fmt: skip
        self.model.parts.to(self.runtime.device)
        check_stages(self.model, self.data, self.runtime)

    def train(self, *, until: str | None = None, only: bool = False, state: checkpoint.Checkpoint | None = None) -> int:
        """Train stage after stage up to and with `until`, or it alone with `only`.

        Returns a signal's number where one stopped it, else 0.
        """
        if until is not None:
            stage_named(self.recipe, until)
        first: str | None = state.metadata["stage"] if state is not None else until if only else None
        begin = 0 if first is None else self.order.index(first)
        if state is not None:
            self.learned = state.metadata.get("learned", [])
            self.started_from = {k: v for k, v in state.metadata.items() if k == "started_from"}
        else:
            self._turn_to(begin)
        catalog().hooks.vqtool_run_started(run=self.run_dir)
        status: Status = "failed"
        try:
            with Signals() as signals:
                for number in range(begin, len(self.order)):
                    stopped = self._stage(number, signals, state if number == begin else None)
                    if stopped:
                        status = "interrupted"
                        return stopped
                    if self.order[number] == until:
                        break
                stopped = self.runtime.any_rank(signals.received)  # after the last step: then it is not evaluated
            status = "interrupted" if stopped else "done"
            return stopped
        except UnhealthyError:
            status = "interrupted"
            raise
        finally:
            catalog().hooks.vqtool_run_finished(run=self.run_dir, status=status)

    def _stage(self, number: int, signals: Signals, state: checkpoint.Checkpoint | None) -> int:
        stage = self.recipe.stages[number]
        again = any(shares_best(before, stage) for before in self.recipe.stages[:number]) or self._is_learned(stage)
        loop = StageLoop(self.model, stage, self.data, self.runtime, seed=self.recipe.seed, log=self.run_dir.log,
                         stop_on=self.stop_on, start_counts=again, validated=self.run_dir.validated)  # fmt: skip
        if state is not None:
            load_state(loop, state)
            self.done = state.metadata["done"]
        began, before = time.perf_counter(), loop.progress.seconds

        def save(kind: str) -> None:
            if kind == "best":
                self._checkpoint(BEST, stage.name, loop)
            elif self.runtime.is_main:
                if kind == "resume":
                    with loop.average.applied():
                        self._checkpoint(LAST, stage.name, loop)
                save_state(self.run_dir, loop, stage.name, self._so_far())

        stopped = loop.run(signals, save)
        if stopped:
            return stopped
        with loop.average.applied():
            self._checkpoint(LAST, stage.name, loop)
        if self.runtime.is_main:
            best = checkpoint.load(self.run_dir.path(BEST))
            self._save(stage_file(stage.name), best.tensors, best.metadata)
            restore(self.model, best, BEST)
        self.runtime.broadcast_module(self.model.parts)
        for name, value in self.runtime.broadcast_object(self.model.knobs()).items():
            role, _, knob = name.partition(".")
            setattr(self.model.parts[role], knob, value)
        if again and loop.progress.best_step == 0:
            out.say(f"stage `{stage.name}` never got better than it started: its checkpoint holds what it started with")
        seconds = before + time.perf_counter() - began
        self.done.append({"name": stage.name, "steps": loop.progress.step, "seconds": round(seconds, 2)})
        if number + 1 < len(self.order):
            self._turn_to(number + 1)  # of the last stage the state at its end stays, until it is evaluated
        return 0

    def _is_learned(self, stage: StageSpec) -> bool:
        """Whether all that a stage trains came from another run: then the stage may end as it began."""
        trained = [role for role in self.model.tasks[stage.name].trains
                   if role in self.model.parts and self.model.parts[role].state_dict()]  # fmt: skip
        return bool(trained) and set(trained) <= set(self.learned)

    def _so_far(self) -> dict[str, Any]:
        """What a resumed run needs to know of what was done."""
        return {"done": self.done, "files": self.files, "learned": self.learned, **self.started_from}

    def _turn_to(self, number: int) -> None:
        """Leave a resumable state at the very start of a stage."""
        if self.runtime.is_main:
            metadata = {"stage": self.order[number], "fresh": True, **self._so_far(), **self.model.metadata()}
            self.run_dir.save(RESUME, self.model.tensors(), metadata)

    def _checkpoint(self, name: str, stage: str, loop: StageLoop) -> None:
        if not self.runtime.is_main:
            return
        self._save(name, self.model.tensors() | loop.module.learned_by_losses(), {
            "version": vqtool.__version__,
            "recipe": self.recipe.kept_text(),
            "resolved": self.recipe.resolved(self.run_dir.folder),
            "stage": stage,
            "step": loop.progress.step,
            "data": self.data.spec.to_json(),
            "plugins": plugin_versions(),
            **self.started_from,
            "metrics": {"best": loop.progress.best, "best_step": loop.progress.best_step, "named": loop.options.best},
            **self.model.metadata(),
        })  # fmt: skip

    def _save(self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
        """Write a checkpoint and show it to the plugins."""
        self.run_dir.save(name, tensors, metadata)
        catalog().hooks.vqtool_checkpoint_saved(run=self.run_dir, path=self.run_dir.path(name))

    def finish(self, *, seconds: float, until: str | None = None) -> dict[str, Any]:
        """Evaluate what was trained last on held-out rows, and write `summary.json`: only then a run is finished."""
        stage = until or self.order[-1]
        splits = evaluate(self.model, stage, self.data, self.runtime) if self.runtime.is_main else {}
        name = stage_file(stage)
        document = {
            "run": self.run_dir.folder.resolve().name,
            "checkpoint": name,
            "seconds": round(seconds, 2),
            "stages": self.done,
            "splits": splits,
        }
        self.run_dir.write(SUMMARY_FILE, json.dumps(document, indent=1))
        if stage == self.order[-1] and self.runtime.is_main:
            self.run_dir.path(RESUME).unlink(missing_ok=True)
        return document | {"run": str(self.run_dir.folder), "checkpoint": str(self.run_dir.path(name))}


def shares_best(before: StageSpec, stage: StageSpec) -> bool:
    """Whether two stages train the same task by the same measure, so that the later may not end worse than it began."""
    return (before.task == stage.task and before.train.best == stage.train.best
            and before.train.best_mode == stage.train.best_mode)  # fmt: skip


def resume(
    run: RunDir,
    runtime: Runtime,
    *,
    stop_on: StopOn | None = None,
    force: bool = False,
    data: Path | None = None,
) -> tuple[Session, checkpoint.Checkpoint]:
    """A session at the position where a run stopped; with `force`, also on data that changed since.

    `data` replaces the recipe's path of the data.

    Raises:
        VqtoolError: there is nothing to resume, or the data are not those that the run began with.
    """
    path = run.path(RESUME)
    if not path.is_file():
        finished = run.path(SUMMARY_FILE).is_file()
        raise VqtoolError(
            f"`{run.folder}` has nothing to resume: it {'is finished' if finished else 'was stopped before it saved'}",
            hint=f"vqtool show {run.folder}" if finished else f"vqtool train RECIPE -o {run.folder} begins again",
        )
    state = checkpoint.load(path)
    recipe = run.recipe()
    if data is not None:
        recipe = with_data(recipe, data.absolute())
    (stage,) = checkpoint.needed(path, state, "stage")
    stage_named(recipe, stage)
    session = Session(recipe, run, runtime, stop_on=stop_on, header=state.header)
    same_data(session, state, force=force)
    restore(session.model, state, str(path))
    session.model.parts.to(runtime.device)
    run.forget_after(session.order, state.metadata["stage"], state.metadata.get("progress", {}).get("step", -1))
    out.say(f"resuming {run.folder} in stage `{state.metadata['stage']}`")
    return session, state


def same_data(session: Session, state: checkpoint.Checkpoint, *, force: bool) -> None:
    """Refuse data that changed since the run began, or say so where `force` takes them as they are."""
    changed = "; ".join(changes(state.metadata.get("files") or {}, session.files))
    if changed and not force:
        raise VqtoolError(f"the data are not those that the run began with: {changed}",
                          hint="put them back, or continue with the changed files: `--force`")  # fmt: skip
    if changed:
        out.warn(f"other data than the run began with: {changed}")


def try_stages(recipe: Recipe, *, step: bool = False) -> None:
    """Open the data and make what training and evaluation will need, on the CPU; writes nothing.

    With `step`, take one step of every stage with two rows.
    """
    here = Runtime(torch.device("cpu"))
    data = open_data(recipe)
    model = build(recipe, data.spec)
    fit_parts(model, data)
    check_stages(model, data, here)
    for stage in recipe.stages if step else ():
        loop = StageLoop(model, stage, data, here, seed=recipe.seed, log=lambda row: None)
        start_codebooks(loop)
        loop.module.task.begin(loop.module.parts)
        loop.batches = Batches(data, batch=2, accumulate=1, seed=recipe.seed, stage=stage.name, runtime=here)
        loop.step_once()
