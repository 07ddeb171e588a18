"""Codebooks watched by a callback of Lightning: `Trainer(callbacks=[vqtool.lightning.CodebookMonitor()])`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from vqtool.diagnosis import monitor as own
from vqtool.diagnosis.news import StopOn, UnhealthyError
from vqtool.errors import missing_extra

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError as error:
            raise missing_extra("lightning", "lightning", "vqtool.lightning") from error


class CodebookMonitor(Callback):
    """`vqtool.CodebookMonitor` of the module that is trained: logs its figures, and warns of what is new.

    Args:
        every: optimizer steps (`trainer.global_step`) between two looks.
        codebooks: as for `vqtool.CodebookMonitor`.
        modules: as for `vqtool.CodebookMonitor`, by path in the LightningModule.
        stop_on: "fail" or "warn": training stops, as by early stopping, where a finding of this severity, or a worse
            one, is there at two looks in a row.
    """

    def __init__(
        self, *, every: int = 200, codebooks: Mapping[str, str] | None = None,
        modules: Sequence[str | nn.Module] | Mapping[str, int] | None = None, stop_on: StopOn | None = None,
    ) -> None:  # fmt: skip
        self.options: dict[str, Any] = {"every": every, "codebooks": codebooks, "modules": modules, "stop_on": stop_on}
        self.monitor: own.CodebookMonitor | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the quantizers, once they are where they train."""
        self.monitor = own.CodebookMonitor(pl_module, **self.options)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Look, and log what was measured."""
        assert self.monitor is not None
        before = len(self.monitor.rows)
        try:
            for finding in self.monitor.look(trainer.global_step):
                if trainer.is_global_zero:
                    warnings.warn(f"step {trainer.global_step}: {finding}", stacklevel=2)
        except UnhealthyError as error:
            trainer.should_stop = True
            warnings.warn(str(error), stacklevel=2)
        if len(self.monitor.rows) > before:
            pl_module.log_dict(self.monitor.figures(), rank_zero_only=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks away; `callback.monitor` still has its report."""
        if self.monitor is not None:
            self.monitor.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same."""
        self.on_train_end(trainer, pl_module)
