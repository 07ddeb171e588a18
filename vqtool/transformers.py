"""Codebooks watched by a callback of the transformers Trainer: `callbacks=[vqtool.transformers.CodebookMonitor()]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqtool.diagnosis.monitor import Watching
from vqtool.errors import missing_extra

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
else:
    try:
        import accelerate  # noqa: F401  # the Trainer needs it
        from transformers import TrainerCallback
    except ImportError as error:
        raise missing_extra(error.name or "transformers", "transformers", "vqtool.transformers") from error


class CodebookMonitor(Watching, TrainerCallback):
    """`vqtool.CodebookMonitor` of the model that is trained: logs its figures, and warns of what is new.

    Takes `every` (of `state.global_step`), `codebooks`, `modules` and `stop_on` as `vqtool.CodebookMonitor` does;
    `stop_on` ends training after the step. The figures go into `state.log_history`, and to callbacks that come after
    this one. To send them to W&B or TensorBoard, put it first:
    `trainer.callback_handler.callbacks.insert(0, vqtool.transformers.CodebookMonitor())`.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any
    ) -> None:
        """Find the quantizers of the model."""
        self.watch(named["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any) -> None:
        """Look, and have what was measured logged."""
        figures, stop = self.looked(state.global_step, shows=state.is_world_process_zero)
        control.should_training_stop = control.should_training_stop or stop
        if figures:
            self.figures, control.should_log = figures, True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any) -> None:
        """Add the figures of the last look to what is logged."""
        logs = named.get("logs")
        if logs is not None:
            logs |= self.figures
            state.log_history[-1] |= self.figures
            self.figures = {}

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any) -> None:
        """Take the hooks away; `callback.monitor` still has its report."""
        self.release()
