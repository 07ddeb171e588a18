"""Codebooks start from what the encoder gives, before the first step or behind a bypass of the quantizer."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from vqtool.api.data import Data
from vqtool.api.quantizer import Quantizer
from vqtool.layers.lengths import cat_windows
from vqtool.model.seeds import seed_of
from vqtool.recipe.spec import StageSpec, TrainOptions
from vqtool.training.batches import Batches
from vqtool.training.runtime import Runtime
from vqtool.training.stage import StageModule

MOST_STARTING_BATCHES = 512  # where rows vary from epoch to epoch


class Loop(Protocol):
    """The loop of a stage, as far as a start reads it."""

    quantizer: Quantizer | None
    follows: bool
    seed: int
    data: Data
    batches: Batches
    stage: StageSpec
    options: TrainOptions
    runtime: Runtime
    module: StageModule


def start_codebooks(loop: Loop, *, again: bool = False) -> None:
    """Start a quantizer from real encoder outputs, the same on all ranks; a started one only if asked to, `again`."""
    if loop.quantizer is None or not loop.follows or (loop.quantizer.initialised and not again):
        return
    z, mask = quantizer_inputs(loop)
    loop.quantizer.initialise(z, mask, seed=seed_of(loop.seed, "codebooks"))


@torch.no_grad()
def quantizer_inputs(loop: Loop) -> tuple[Tensor, Tensor | None]:
    """What the quantizer is given of the first batches: `z` [B, T, D] and the mask [B, T], `start_tokens` a code.

    Of data that vary their rows it is as many epochs as that takes; of others one: a second would add nothing.
    """
    assert loop.quantizer is not None
    given: list[tuple[Tensor, Tensor | None]] = []
    tokens, wanted = 0, loop.quantizer.start_tokens * max(loop.quantizer.codebook_sizes)
    varied = type(loop.data).augment is not Data.augment
    for step in range(max(1, loop.batches.per_epoch) if not varied else MOST_STARTING_BATCHES):
        torch.manual_seed(seed_of(loop.seed, loop.stage.name, "start", step))
        with loop.runtime.autocast(loop.options.precision):
            z, mask = loop.module.task.latents(loop.module.parts, loop.batches.whole(step))
        given.append((z.float(), mask))
        tokens += z.shape[0] * z.shape[1]
        if tokens >= wanted:
            break
    return cat_windows(given)
