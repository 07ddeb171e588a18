"""The callback of the transformers Trainer, with transformers itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import vqtool
from tests.diagnosis.test_monitor import Model, batch, die, made_vq, residual

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")


class Loss(Model):
    """A model as the Trainer calls it; `event` happens before a pass."""

    passes, event = 0, None

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        self.passes += 1
        if self.event is not None and self.passes == 41:
            self.event()
        return {"loss": super().forward(x[0])}


def fitted(model: Loss, folder: Path, *, steps: int = 100, **options: Any) -> tuple[Any, Any]:
    callback = vqtool.transformers.CodebookMonitor(every=10, **options)
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=1, use_cpu=True, save_strategy="no", report_to=[],
        disable_tqdm=True, logging_steps=1000, learning_rate=1e-3)  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=[{"x": batch(n)} for n in range(steps)],
                                   callbacks=[callback])  # fmt: skip
    trainer.create_optimizer()
    if isinstance(model.quantizer, vqtool.api.Quantizer):
        vqtool.attach(trainer.optimizer, model)
    trainer.train()
    return trainer, callback


@pytest.mark.filterwarnings("error:step")
def test_figures_are_logged_and_a_healthy_model_is_no_news(tmp_path: Path) -> None:
    trainer, callback = fitted(Loss(made_vq()), tmp_path, steps=30)
    logged = [row for row in trainer.state.log_history if "codes.perplexity.level1" in row]
    assert [row["step"] for row in logged] == [10, 20, 30]
    assert callback.monitor.report().healthy


def test_it_warns_and_stops(tmp_path: Path) -> None:
    model = Loss(residual())
    model.event = die(model, 1)  # type: ignore[assignment]
    with pytest.warns(UserWarning, match="step 50: fail dead-level in level1"):
        trainer, _ = fitted(model, tmp_path, stop_on="fail")
    assert trainer.state.global_step == 60


def test_it_names_the_extra_where_transformers_is_missing() -> None:
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "import vqtool\ntry:\n  vqtool.transformers\nexcept vqtool.VqtoolError as e:\n  print(e, e.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'vqtool[transformers]'" in done.stdout
