"""Codebooks watched by a callback of the transformers Trainer: `callbacks=[vqtool.transformers.CodebookMonitor()]`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from vqtool.diagnosis import monitor as own
from vqtool.diagnosis.news import StopOn, UnhealthyError
from vqtool.errors import missing_extra

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
else:
    try:
        import accelerate  # noqa: F401  # the Trainer needs it
        from transformers import TrainerCallback
    except ImportError as error:
        raise missing_extra(error.name or "transformers", "transformers", "vqtool.transformers") from error


class CodebookMonitor(TrainerCallback):
    """`vqtool.CodebookMonitor` of the model that is trained: logs its figures, and warns of what is new.

    The figures go into `state.log_history`, and to callbacks that come after this one. To send them to W&B or
    TensorBoard, put it first: `trainer.callback_handler.callbacks.insert(0, vqtool.transformers.CodebookMonitor())`.

    Args:
        every: optimizer steps (`state.global_step`) between two looks.
        codebooks: as for `vqtool.CodebookMonitor`.
        modules: as for `vqtool.CodebookMonitor`, by path in the model.
        stop_on: "fail" or "warn": training stops after the step where a finding of this severity, or a worse one, is
            there at two looks in a row.
    """

    def __init__(
        self, *, every: int = 200, codebooks: Mapping[str, str] | None = None,
        modules: Sequence[str | nn.Module] | Mapping[str, int] | None = None, stop_on: StopOn | None = None,
    ) -> None:  # fmt: skip
        self.options: dict[str, Any] = {"every": every, "codebooks": codebooks, "modules": modules, "stop_on": stop_on}
        self.monitor: own.CodebookMonitor | None = None
        self.figures: dict[str, float] = {}  # of the last look, until they are logged

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any
    ) -> None:
        """Find the quantizers of the model."""
        self.monitor = own.CodebookMonitor(named["model"], **self.options)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any) -> None:
        """Look, and have what was measured logged."""
        assert self.monitor is not None
        before = len(self.monitor.rows)
        try:
            for finding in self.monitor.look(state.global_step):
                if state.is_world_process_zero:
                    warnings.warn(f"step {state.global_step}: {finding}", stacklevel=2)
        except UnhealthyError as error:
            control.should_training_stop = True
            warnings.warn(str(error), stacklevel=2)
        if len(self.monitor.rows) > before:
            self.figures = self.monitor.figures()
            control.should_log = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any) -> None:
        """Add the figures of the last look to what is logged."""
        logs = named.get("logs")
        if logs is not None:
            logs |= self.figures
            state.log_history[-1] |= self.figures
            self.figures = {}

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any) -> None:
        """Take the hooks away; `callback.monitor` still has its report."""
        if self.monitor is not None:
            self.monitor.close()
