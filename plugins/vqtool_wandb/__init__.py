"""Weights & Biases: every row of a run's metrics, once WANDB_PROJECT names a project; otherwise nothing leaves here."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any, Literal

from vqtool.catalog import hookimpl
from vqtool.untrusted import read_json

SHOWN = 4  # reconstructions of a validation
HEARD = 4000, 192_000  # Hz; signals of such rates are sound
MOST_BUCKETS = 512  # of a histogram of W&B

_runs: dict[str, Any] = {}  # by the run's folder


@hookimpl
def vqtool_metrics(run: Any, row: Mapping[str, Any]) -> None:
    """`train/tokenizer/mse` and the like, over `tokenizer/step`: each stage counts its own steps."""
    logged = run_of(run)
    if logged is None:
        return
    step, where = f"{row['stage']}/step", f"{row['split']}/{row['stage']}"
    logged.define_metric(step, hidden=True)
    logged.define_metric(f"{where}/*", step_metric=step)
    figures = {f"{where}/{name}": value for name, value in row.items()
            if isinstance(value, int | float) and name not in ("step", "seconds")}  # fmt: skip
    logged.log({step: row["step"], **figures})


@hookimpl
def vqtool_validated(run: Any, validation: Any) -> None:
    """How often each code is used, and reconstructions of pictures and sound."""
    logged = run_of(run)
    if logged is None:
        return
    import wandb

    where, rate = f"valid/{validation.stage}", validation.spec.sample_rate
    shown: dict[str, Any] = {
        f"{where}/codes/{name}": wandb.Histogram(np_histogram=(counts.tolist(), list(range(len(counts) + 1))))
        for name, counts in validation.counts.items()
        if len(counts) <= MOST_BUCKETS
    }
    for name, signals in zip(("original", "reconstruction"), validation.pairs(SHOWN) or (), strict=False):
        if signals.ndim == 4 and signals.shape[1] in (1, 3):  # pictures
            shown[f"{where}/{name}"] = [wandb.Image(one) for one in signals]
        elif signals.ndim == 3 and rate is not None and HEARD[0] <= rate <= HEARD[1]:
            shown[f"{where}/{name}"] = [wandb.Audio(one[0].numpy(), sample_rate=int(rate)) for one in signals]
    logged.log({f"{validation.stage}/step": validation.step, **shown})


@hookimpl
def vqtool_run_finished(run: Any, status: Literal["done", "interrupted", "failed"]) -> None:
    """Write what is left, and how the run ended."""
    logged = _runs.pop(str(run.folder), None)
    if logged is not None:
        logged.summary["status"] = status
        logged.finish(exit_code=0 if status == "done" else 1)


def run_of(run: Any) -> Any:
    """The W&B run, begun when its first row comes; None where no project is named or wandb is not installed.

    Its files lie in the run's own folder. With WANDB_MODE=offline they stay there, until `wandb sync` is asked for.
    """
    key = str(run.folder)
    if key not in _runs and os.environ.get("WANDB_PROJECT") and importlib.util.find_spec("wandb") is not None:
        import wandb

        recipe = read_json(run.folder / "resolved.json")
        settings = wandb.Settings(console="off", silent=True, disable_code=True, disable_git=True)
        _runs[key] = wandb.init(dir=key, name=run.folder.name, config=recipe, settings=settings, reinit="create_new")
    return _runs.get(key)
