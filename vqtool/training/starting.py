"""Codebooks start from what the encoder gives, before the first step or behind a bypass of the quantizer."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vqtool.api.data import Data
from vqtool.api.quantizer import Quantizer
from vqtool.model.seeds import seed_of
from vqtool.recipe import StageSpec
from vqtool.training.batches import Batches
from vqtool.training.runtime import Runtime
from vqtool.training.stage import StageModule

MOST_STARTING_BATCHES = 512  # where rows vary from epoch to epoch


class _SeenError(Exception):
    """Carries what the quantizer was given out of a task's step."""


class Loop(Protocol):
    """What a start reads of the loop of a stage."""

    quantizer: Quantizer | None
    follows: bool  # whether the stage trains it
    module: StageModule
    stage: StageSpec
    data: Data
    batches: Batches
    runtime: Runtime
    seed: int


def start_codebooks(loop: Loop, *, again: bool = False) -> None:
    """Start a quantizer from real encoder outputs, the same on all ranks; a started one only if asked to, `again`."""
    if loop.quantizer is None or not loop.follows or (loop.quantizer.initialised and not again):
        return
    z, mask = quantizer_inputs(loop)
    loop.quantizer.initialise(z, mask, seed=seed_of(loop.seed, "codebooks"))


def quantizer_inputs(loop: Loop) -> tuple[Tensor, Tensor | None]:
    """What the quantizer is given of the first batches: `z` [B, T, D] and the mask [B, T], `start_tokens` a code.

    Of data that vary their rows it is as many epochs as that takes; of others one: a second would add nothing.
    """
    assert loop.quantizer is not None
    seen: list[tuple[Tensor, Tensor | None]] = []

    def catch(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        mask = arguments[1] if len(arguments) > 1 else named.get("mask")
        seen.append((arguments[0].detach().float(), mask))
        raise _SeenError

    wanted = loop.quantizer.start_tokens * max(loop.quantizer.codebook_sizes)
    varied = type(loop.data).augment is not Data.augment
    with loop.quantizer.register_forward_pre_hook(catch, with_kwargs=True), torch.no_grad():
        for step in range(max(1, loop.batches.per_epoch) if not varied else MOST_STARTING_BATCHES):
            torch.manual_seed(seed_of(loop.seed, loop.stage.name, "start", step))
            with contextlib.suppress(_SeenError), loop.runtime.autocast(loop.stage.train.precision):
                loop.module(loop.batches.whole(step))
            if sum(z.shape[0] * z.shape[1] for z, _ in seen) >= wanted:
                break
    z = torch.cat([z for z, _ in seen])
    masks = [mask for _, mask in seen]
    return z, None if masks[0] is None else torch.cat([m for m in masks if m is not None])
