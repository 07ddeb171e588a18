"""`Task.latents` is what the quantizer reads in a step: of every task that trains one, at the same random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.images.conftest import columns
from tests.semcom.test_classify import RECIPE as LINK
from tests.training.test_resume import session
from tests.training.tiny import TOKENIZER
from vqtool.catalog import catalog

TASKS = {
    "autoencode": ("", "losses = { mse = 1.0 }"),
    "autoencode under a condition": ('[conditioner]\nkind = "conv1d"\ndim = 8', "losses = { mse = 1.0 }"),
    "autoencode mixed rows": ("", "options = { mix = 0.5 }\nlosses = { mse = 1.0 }"),
    "classify": ("", ""),
    "contrast": ('[context]\nkind = "transformer"', "losses = { info-nce = 1.0 }"),
}


def recipe_of(folder: Path, task: str) -> Path:
    """A recipe whose last stage is of the task."""
    path = folder / "tiny.toml"
    if task == "classify":
        np.savez(folder / "pictures.npz", **columns())
        path.write_text(LINK)
        return path
    x = np.random.default_rng(0).normal(size=(120, 32)).astype(np.float32)
    np.savez(folder / "signals.npz", x=x, **({"wave_one": x} if "condition" in task else {}))
    parts, stage = TASKS[task]
    text = TOKENIZER.format(seed=0)
    if task == "contrast":
        text = text[: text.index("[decoder]")] + text[text.index("[train]") :]
    stage = f'[[stage]]\nname = "one"\ntask = "{task.split()[0]}"\nsteps = 1\n{stage}\n'
    path.write_text(f"{text[: text.index('[[stage]]')]}\n{parts}\n\n{stage}")
    return path


@pytest.mark.parametrize("task", TASKS)
def test_latents_are_what_the_quantizer_reads(tmp_path: Path, task: str) -> None:
    made = session(recipe_of(tmp_path, task), tmp_path / "run")
    parts, one, rows = made.model.parts, list(made.model.tasks.values())[-1], made.data.rows("train")
    batch = rows.__getitems__(list(range(8)))
    seen: list[tuple[Tensor, Any]] = []

    def see(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append((arguments[0], arguments[1] if len(arguments) > 1 else named.get("mask")))

    if not parts.quantizer.initialised:
        parts.quantizer.initialise(one.latents(parts, batch)[0].detach())
    parts.train()
    with parts.quantizer.register_forward_pre_hook(see, with_kwargs=True):
        torch.manual_seed(0)
        one.step(parts, batch)
    torch.manual_seed(0)
    z, mask = one.latents(parts, batch)
    assert torch.equal(z, seen[0][0])
    assert (mask is None) == (seen[0][1] is None)
    assert mask is None or torch.equal(mask, seen[0][1])


def test_every_task_that_trains_a_quantizer_is_tried() -> None:
    tasks = {c.name for c in catalog().components if c.role == "task" and catalog().provider(c).startswith("vqtool ")}
    trained = {kind for kind in tasks if "quantizer" in catalog().load("task", kind).trains}
    elsewhere = {"any-series-tokens"}  # tests/forecast/test_any_series.py
    assert trained - elsewhere == {name.split()[0] for name in TASKS}
