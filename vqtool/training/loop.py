"""The one loop. A step is: batch -> task -> losses -> backward -> optimizer -> quantizer.update(statistics)."""

from __future__ import annotations

import contextlib
import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vqtool.api.data import Data
from vqtool.api.quantizer import CodebookStats, Quantized, sum_stats
from vqtool.api.task import Better
from vqtool.console import out
from vqtool.diagnosis.measures import usage_row
from vqtool.diagnosis.news import StopOn, UnhealthyError
from vqtool.diagnosis.report import Finding
from vqtool.errors import VqtoolError
from vqtool.model.format import BYPASS, USAGE
from vqtool.model.model import Model
from vqtool.model.seeds import seed_of
from vqtool.model.seen import Seen
from vqtool.quantizers.core.updates import reduce_stats
from vqtool.recipe import StageSpec
from vqtool.training.batches import Batches
from vqtool.training.headline import Headline, holds, number, require_figures, set_knobs
from vqtool.training.optimise import DISCRIMINATOR, Optimisers, role_of
from vqtool.training.runtime import Runtime, Signals
from vqtool.training.stage import Average, Knobs, StageModule, not_finite
from vqtool.training.starting import start_codebooks
from vqtool.training.usage import Usage
from vqtool.training.validate import Validation, reconstructed, validate
from vqtool.training.watch import Motion, Watch

NAN_FLAG = 1 << 16
SHARE = 0.05  # the most of the time that goes into saving, but for saves at validations
SHOW_SECONDS = 1.0  # between two updates of the bar's figures: each waits for the device


@dataclass
class Progress:
    """Where a stage stands; everything here, the parts and the optimizer make a resumable state."""

    step: int = 0
    best: float = math.nan
    best_step: int = 0
    stale: int = 0  # validations since the best
    seconds: float = 0.0


class Saving:
    """Calls `save`, and says when a resumable state is due: `seconds` after the last.

    Where saving takes long, the next is due later.
    """

    def __init__(self, save: Callable[[str], None], seconds: float) -> None:
        self.save, self.seconds = save, seconds
        self.next = time.monotonic() + seconds

    def __call__(self, kind: str) -> None:
        """Save, and count the time from here."""
        began = time.monotonic()
        self.save(kind)
        if kind != "best":
            now = time.monotonic()
            self.next = now + max(self.seconds, (now - began) / SHARE)

    def if_due(self) -> None:
        """Save where it is time."""
        if time.monotonic() >= self.next:
            self("state")


class StageLoop:
    """Trains one stage; `run` is the loop itself, and the rest serves it."""

    def __init__(self, model: Model, stage: StageSpec, data: Data, runtime: Runtime, *, seed: int, log: Any,
                 stop_on: StopOn | None = None, start_counts: bool = False,
                 validated: Callable[[Validation], None] | None = None) -> None:  # fmt: skip
        self.model, self.stage, self.data, self.runtime, self.seed, self.log = model, stage, data, runtime, seed, log
        self.validated = validated  # is shown every validation
        self.start_counts = start_counts  # whether the weights that the stage starts with may be its best
        options = stage.train
        self.options = options
        self.batches = Batches(data, batch=options.batch, accumulate=options.accumulate, seed=seed, stage=stage.name,
                               runtime=runtime)  # fmt: skip
        self.steps = options.steps if options.steps is not None else (options.epochs or 0) * self.batches.per_epoch
        torch.manual_seed(seed_of(seed, stage.name, "losses"))
        self.module = StageModule(model, stage).to(runtime.device)
        self.module.freeze()
        runtime.require(options)
        if options.compile:
            self.module.compile_parts()
        self._check_rates()
        self.knobs = Knobs(self.module, stage, self.steps, self.batches.per_epoch)
        self.quantizer = model.quantizer
        self.follows = self.quantizer is not None and "quantizer" in self.module.task.trains
        self.parameters = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        self.progress = Progress()
        kept = {n: p for n, p in self.parameters.items() if role_of(n) != DISCRIMINATOR}
        self.average = Average(kept, options.average)
        self.optimisers = Optimisers(self.parameters, self.module.optimizers(), options, self.steps, runtime.device)
        self.after = options.discriminator.after  # steps without the discriminator
        self.usage = Usage()
        self.moved: dict[str, float] = {}  # which codes moved in the last step that was looked at
        self.watch: Watch | None = None
        if self.follows and self.quantizer is not None:
            self.watch = Watch(model.recipe.resolved(), stage.name, self.steps, self.quantizer, stop_on)
        self.ill: Finding | None = None  # what to stop at
        self.fixed_knobs = set_knobs(stage.set)
        self.headline = Headline(stage.name, self.steps, self._watched(), self.quantizer)
        self.met = False  # whether all that `stop_when` asks for held in a validation
        self.shown = 0.0  # when the bar was last given figures

    def _check_rates(self) -> None:
        unknown = sorted(set(self.options.rates) - set(self.module.parts))
        if unknown:
            raise VqtoolError(
                f"`rates` names {', '.join(f'`{role}`' for role in unknown)}, which the stage does not have",
                hint="there are " + ", ".join(f"`{role}`" for role in self.module.parts),
                where=f"stage `{self.stage.name}`",
            )

    def _watched(self) -> dict[str, Better]:
        """The figures of the line of a validation: those the stage is judged by, the loss, those of the task."""
        shown: dict[str, Better] = {name: None if better == "none" else better
                                    for name, better in self.options.show.items()}  # fmt: skip
        judged: dict[str, Better] = {self.options.best: self.options.best_mode}
        judged |= {name: "min" if "<" in asked else "max" for name, asked in self.options.stop_when.items()}
        return {**judged, "loss": "min", **self.module.task.headline, **shown, **judged}

    def run(self, signals: Signals, save: Callable[[str], None]) -> int:
        """Train to the end, or until a signal (returned; 0 when done).

        `save(kind)` writes the "best" checkpoint, the "state" to resume from, or that and the last checkpoint
        ("resume"). It must need no other rank: each looks at its own clock.
        """
        saving = Saving(save, self.options.save_seconds)
        if self.progress.step == 0:
            if self.start_counts or self.knobs.bypass(0) < 1:
                start_codebooks(self)
            self.module.task.begin(self.module.parts)
            if self.start_counts:
                self._validate(save)
        wrapped = self._wrap()
        every = self.options.valid_every or max(1, self.steps // 5)
        with out.progress(self.steps, self._label()) as bar:
            bar.begin_at(self.progress.step)
            while self.progress.step < self.steps and not self._ends_early():
                began = time.perf_counter()
                shown = self._step(wrapped)
                self.progress.step += 1
                last = self.progress.step == self.steps
                if self.progress.step % every == 0 or last:
                    self._validate(saving)
                    saving("resume")  # of the live weights, not their average: a killed run goes on from here
                self.progress.seconds += time.perf_counter() - began
                bar.advance(1, **shown)
                stop = self.runtime.any_rank(signals.received)
                if stop:
                    saving("resume")
                    return stop
                self._stop_if_ill(saving)
                saving.if_due()
        return 0

    def step_once(self) -> None:
        """One step outside of `run`, for a dry run."""
        self.after = 0
        self.knobs.schedules.pop(BYPASS, None)
        self._step(self.module)

    def _step(self, wrapped: nn.Module) -> dict[str, float | str]:
        """One optimizer step; returns what the progress bar shows."""
        step, options = self.progress.step, self.options
        scheduled = self.knobs.move(step)
        if self.knobs.bypass(step) < 1 <= self.knobs.bypass(step - 1):
            self._end_bypass()
        watched = self.quantizer if self.follows and self._logs(step + 1) else None
        motion = Motion(watched) if watched is not None and watched.initialised else None
        before = len(self.usage.kept)
        rate = scheduled.get("lr", self.optimisers.rate(step))
        self.optimisers.use(rate)
        self.module.opposing = step >= self.after
        self.runtime.seed(seed_of(self.seed, self.stage.name, "step", step, self.runtime.rank))
        micro = self.batches.micro(step)
        sizes = [len(next(iter(batch.values()))) for batch in micro]
        shares = [size / sum(sizes) for size in sizes]
        terms: list[dict[str, Tensor]] = []
        totals: list[Tensor] = []
        stats: list[tuple[CodebookStats, ...]] = []
        for at, batch in enumerate(micro):
            with self._no_sync(wrapped) if at + 1 < len(micro) else contextlib.nullcontext():
                with self.runtime.autocast(options.precision):
                    total, figures, outputs = wrapped(batch)
                totals.append(total.detach())
                if at + 1 == len(micro):
                    losses = self.runtime.fetch(torch.stack(totals))
                self.optimisers.backward(total if len(micro) == 1 else total * shares[at])
            terms.append(figures)
            quantized = outputs.get("quantized")
            if isinstance(quantized, Quantized):
                if self.follows and quantized.stats:
                    stats.append(quantized.stats)
                if self.knobs.bypass(step) < 1:
                    self.usage.add(quantized.codes)
        self._require_finite(terms, losses())
        self.optimisers.step()
        self.average.update()
        if stats and self.quantizer is not None:
            total_stats = sum_stats(stats)
            self.quantizer.update(reduce_stats(total_stats) if self.runtime.world > 1 else total_stats)
        if motion is not None:
            self.moved = motion.figures(self.usage.kept[before:])
        return self._log(terms, shares, scheduled | {"lr": rate})

    def _end_bypass(self) -> None:
        """The codebooks start from what was learned without them; what the watch saw until here is of another model."""
        self.batches.wait()
        start_codebooks(self, again=True)
        if self.watch is not None:
            self.watch.rows.clear()
        out.say(f"stage `{self.stage.name}` quantizes from step {self.progress.step + 1} of {self.steps} on")

    def _require_finite(self, terms: list[dict[str, Tensor]], losses: list[float]) -> None:
        """Stop before the weights change where a rank's loss of a micro-batch became NaN or infinite."""
        bad = [terms[at] for at, loss in enumerate(losses) if not math.isfinite(loss)]
        if self.runtime.any_rank(NAN_FLAG if bad else 0):
            first = bad[0] if bad else terms[0]
            row = {name: float(value) for name, value in first.items()}
            self.log({"stage": self.stage.name, "step": self.progress.step, "split": "train", **row})
            raise not_finite(first, self.stage.name, self.progress.step)

    def _log(
        self, terms: list[dict[str, Tensor]], shares: list[float], knobs: dict[str, float]
    ) -> dict[str, float | str]:
        """Write the row of metrics.jsonl of a step that has one; returns what the bar shows, once a second."""
        step = self.progress.step + 1
        knobs = self.fixed_knobs | knobs
        if not self._logs(step):
            if time.monotonic() - self.shown < SHOW_SECONDS:
                return {}
            return self._on_bar(averaged(terms, shares, "loss")["loss"], knobs)
        losses = averaged(terms, shares)
        counts = self.usage.take(self.quantizer)
        row = {"stage": self.stage.name, "step": step, "epoch": self._epoch(step)[0], "split": "train", **losses,
               **usage_row(counts), **self.moved, **knobs, "seconds": round(self.progress.seconds, 2)}  # fmt: skip
        self.log(row)
        if self.watch is not None and not self.knobs.bypass(step - 1):
            self.watch.note(row)
            if self.watch.due(step):
                self.ill = self.watch.look(step, counts, row) or self.ill
        return self._on_bar(losses["loss"], knobs)

    def _on_bar(self, loss: float, knobs: dict[str, float]) -> dict[str, float | str]:
        """What the bar shows beside the steps."""
        self.shown = time.monotonic()
        now, last = self._epoch(self.progress.step + 1)
        shown: dict[str, float | str] = {"loss": loss, "epoch": f"{now}/{last}"}
        return shown | {name: value for name, value in knobs.items() if name != "lr"}

    def _label(self) -> str:
        """The stage, and which of how many it is."""
        names = [stage.name for stage in self.model.recipe.stages]
        return self.stage.name + (f" ({names.index(self.stage.name) + 1}/{len(names)})" if len(names) > 1 else "")

    def _logs(self, step: int) -> bool:
        """Whether the step, counted from 1, has a row in metrics.jsonl: the first one too, to see something at once."""
        return step % self.options.log_every == 0 or step in (1, self.steps)

    def _stop_if_ill(self, save: Saving) -> None:
        """With `--stop-on`, stop as a signal does: saved, and to be resumed. A stage at its end is finished."""
        watch = self.watch
        if watch is None or watch.news.stop_on is None or self.progress.step >= self.steps:
            return
        if self.runtime.any_rank(int(self.ill is not None)):
            save("resume")
            where = f"stage `{self.stage.name}`, step {self.progress.step}"
            raise UnhealthyError(self.ill, where, "`vqtool resume` continues anyway")

    def _validate(self, save: Callable[[str], None]) -> None:
        """Measure on the validation rows; remember and save the best."""
        bypassed = self.progress.step > 0 and self.knobs.bypass(self.progress.step - 1) > 0
        self.batches.wait()
        with self.average.applied():
            seen = validate(self.module, self.model, self.stage, self.data, self.runtime, seed=self.seed)
            row = seen.row if bypassed else self._judged(seen, save)
        knobs = self.fixed_knobs | self.knobs.now
        step = self.progress.step
        epoch, epochs = self._epoch(step)
        logged = {"stage": self.stage.name, "step": step, "epoch": epoch, "split": "valid", **row, **knobs}
        self.log(logged)
        self.headline.show(step, row, knobs, f"epoch {epoch}/{epochs}", counts=not bypassed)
        if bypassed:  # what was measured is not the error of any codes
            return
        if self.validated is not None:
            self.validated(self._validation(seen, step))
        if self.watch is not None:
            self.watch.note(logged)

    def _judged(self, seen: Seen, save: Callable[[str], None]) -> dict[str, float]:
        """The row of a validation; the model is saved if it is the best."""
        self.model.seen = self.model.seen.followed_by(seen)
        row = self.model.seen.row = {**self.model.seen.row, **self.moved, "step": self.progress.step}
        require_figures(self.options, row.keys(), self.stage.name)
        value = self.runtime.broadcast_scalar(row[self.options.best])
        sign = 1 if self.options.best_mode == "min" else -1
        if math.isnan(self.progress.best) or sign * value < sign * self.progress.best:
            self.progress.best, self.progress.best_step, self.progress.stale = value, self.progress.step, 0
            save("best")
        elif self.progress.step > self.options.patience_after * self.steps:
            self.progress.stale += 1
        self.met = bool(self.options.stop_when) and bool(self.runtime.broadcast_scalar(
            all(holds(row[name], asked) for name, asked in self.options.stop_when.items())))  # fmt: skip
        return row

    def _validation(self, seen: Seen, step: int) -> Validation:
        """What plugins may show of a validation."""
        names = self.quantizer.codebook_names if self.quantizer is not None else ()
        counts = {name: seen.tensors[f"{USAGE}{q}.counts"] for q, name in enumerate(names)
                  if f"{USAGE}{q}.counts" in seen.tensors}  # fmt: skip
        name, rows = self.stage.name, self.data.rows("valid")
        return Validation(name, step, counts, self.model.spec,
                          lambda most: reconstructed(self.model, name, rows, self.runtime, most))  # fmt: skip

    def _ends_early(self) -> bool:
        """Whether the stage is done before its last step; says why."""
        options, progress = self.options, self.progress
        where = f"stage `{self.stage.name}` ends at step {progress.step} of {self.steps}"
        if self.met:
            held = " and ".join(f"{name} {asked}" for name, asked in options.stop_when.items())
            out.say(f"{where}: {held}")
        elif options.patience is not None and progress.stale >= options.patience:
            out.say(f"{where}: no gain in {progress.stale} validations (best {options.best} "
                    f"{number(progress.best)} at {progress.best_step})")  # fmt: skip
        else:
            return False
        return True

    def _epoch(self, step: int) -> tuple[int, int]:
        """Which pass over the training rows a step, counted from 1, belongs to, and how many there are."""
        per = self.batches.per_epoch
        return max(0, step - 1) // per + 1, -(-self.steps // per)

    def _wrap(self) -> nn.Module:
        """The stage over all ranks; buffers are left alone, since every rank updates them alike."""
        if self.runtime.world == 1 or not self.parameters:
            return self.module
        named = inspect.signature(DistributedDataParallel.__init__).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in named else "broadcast_buffers"
        options: dict[str, Any] = {sync: False, "find_unused_parameters": True}
        return DistributedDataParallel(self.module, **options)

    def _no_sync(self, wrapped: nn.Module) -> contextlib.AbstractContextManager[None]:
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else contextlib.nullcontext()


def averaged(terms: list[dict[str, Tensor]], shares: list[float], *names: str) -> dict[str, float]:
    """The terms of a step over its micro-batches, or those of some names; each waits for the device."""
    sums: dict[str, Tensor] = {}
    for share, one in zip(shares, terms, strict=True):
        for name in names or one:
            sums[name] = sums.get(name, 0) + one[name] * share
    return {name: float(value) for name, value in sums.items()}
