"""`vqtool.improve`: the dead codes of a quantizer in memory, on latents of one's own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqtool.api import Quantizer
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.model.build import Builder
from vqtool.model.checkpoint import Checkpoint
from vqtool.model.data import open_data
from vqtool.model.latents import latents_recipe, with_latents
from vqtool.model.model import Model
from vqtool.quantizers.core.composable import Composable, windows
from vqtool.recipe.spec import LossSpec
from vqtool.training.dead_codes import Improvement, improve
from vqtool.training.runtime import runtime


def improve_on_latents(
    quantizer: Quantizer, latents: Any, encoder: Any, *, steps: int, merge: bool, device: str
) -> dict[str, Any]:
    """See `vqtool.improve`."""
    z = encoded(latents, encoder) if encoder is not None else torch.as_tensor(latents)
    if not isinstance(quantizer, Composable):
        raise VqtoolError(f"{type(quantizer).__name__} is not a quantizer of vqtool", hint="vqtool.convert(module)")
    layout = quantizer.layout
    rows, _ = windows(z.detach().float().cpu(), None, layout, quantizer.dim, type(quantizer).__name__)
    was, home = quantizer.training, next(iter([*quantizer.parameters(), *quantizer.buffers()])).device
    try:
        quantizer.layout = "BTD"
        done = on_rows(quantizer, rows, steps=steps, merge=merge, device=device)
    finally:
        quantizer.layout = layout
        quantizer.train(was).to(home)
    return done.document()


def encoded(inputs: Iterable[Any], encoder: Any) -> Tensor:
    """The latents of all inputs."""
    run = getattr(encoder, "encode", encoder)
    with torch.no_grad():
        each = [run(x) for x in inputs]
    if not each or not all(isinstance(z, Tensor) for z in each):
        kind = type(next((z for z in each if not isinstance(z, Tensor)), None)).__name__
        raise VqtoolError(f"the encoder should give tensors of latents, not {kind}" if each else "there are no inputs",
                          hint="encoder=lambda x: model.encoder(x)")  # fmt: skip
    return torch.cat(each)


def on_rows(quantizer: Composable, rows: Tensor, *, steps: int, merge: bool, device: str) -> Improvement:
    """Improve on latents [B, T, D], as `vqtool improve` does on those of a file."""
    recipe = latents_recipe("latents", {"kind": "vq"}, {})  # the quantizer itself takes the place of this one
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latents.npy"
        np.save(path, rows.numpy())
        data = open_data(with_latents(recipe, path, "NTD"))
    builder = Builder(recipe, data.spec)
    builder.parts["quantizer"] = quantizer
    (stage,) = recipe.stages
    terms = tuple(LossSpec(term, quantizer.loss_weights.get(term, 0.0), None) for term in sorted(quantizer.terms))
    stage = replace(stage, losses=(*stage.losses, *terms))
    task = catalog().make("task", stage.task.kind, stage.task.options)
    task.build(builder, data.spec)
    model = Model(recipe, data.spec, builder.parts, {stage.name: task})
    with runtime(device) as here:
        return improve(model, Checkpoint({}), stage, data, here, merge=merge, steps=steps)
