"""The callback of Lightning, with Lightning itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vqtool
from tests.diagnosis.test_monitor import Model, batch, die, made_vq, residual

lightning = pytest.importorskip("lightning")


def fitted(model: Model, folder: Path, event: Any = None, *, steps: int = 100, **options: Any) -> tuple[Any, Any]:
    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, x: Tensor, number: int) -> Tensor:
            if event is not None and number == 40:
                event()
            return self.model(x)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
            if isinstance(model.quantizer, vqtool.api.Quantizer):
                vqtool.attach(optimizer, self)
            return optimizer

    callback = vqtool.lightning.CodebookMonitor(every=10, **options)
    trainer = lightning.Trainer(max_steps=steps, callbacks=[callback], logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
                                default_root_dir=folder)  # fmt: skip
    trainer.fit(Module(), torch.utils.data.DataLoader([batch(n) for n in range(steps)], batch_size=None))
    return trainer, callback


@pytest.mark.filterwarnings("error:step")
def test_figures_are_logged_and_a_healthy_model_is_no_news(tmp_path: Path) -> None:
    model = Model(made_vq())
    trainer, callback = fitted(model, tmp_path, steps=30)
    assert trainer.logged_metrics["codes.perplexity.level1"] > 10
    assert callback.monitor.report().healthy
    assert not any(m._forward_hooks for m in model.modules() if m is model)


def test_it_warns_and_stops(tmp_path: Path) -> None:
    model = Model(residual())
    with pytest.warns(UserWarning, match="step 50: fail dead-level in level1"):
        trainer, _ = fitted(model, tmp_path, die(model, 1), stop_on="fail")
    assert trainer.global_step == 60


def test_it_names_the_extra_where_lightning_is_missing() -> None:
    code = (
        "import sys; sys.modules['lightning'] = sys.modules['pytorch_lightning'] = None\n"
        "import vqtool\ntry:\n  vqtool.lightning\nexcept vqtool.VqtoolError as e:\n  print(e, e.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'vqtool[lightning]'" in done.stdout
