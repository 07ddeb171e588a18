"""Codebooks watched by a callback of Lightning: `Trainer(callbacks=[vqtool.lightning.CodebookMonitor()])`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqtool.diagnosis.monitor import Watching
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


class CodebookMonitor(Watching, Callback):
    """`vqtool.CodebookMonitor` of the LightningModule that is trained: logs its figures, and warns of what is new.

    Takes `every` (of `trainer.global_step`), `codebooks`, `modules` and `stop_on` as `vqtool.CodebookMonitor` does;
    `stop_on` ends training as early stopping does.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the quantizers, once they are where they train."""
        self.watch(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Look, and log what was measured."""
        figures, stop = self.looked(trainer.global_step, shows=trainer.is_global_zero)
        trainer.should_stop = trainer.should_stop or stop
        if figures:
            pl_module.log_dict(figures, rank_zero_only=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks away; `callback.monitor` still has its report."""
        self.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same."""
        self.release()
