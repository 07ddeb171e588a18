"""Reinitialising dead codes: k-means over the encoder's outputs, then some more training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vqtool.api.data import Data
from vqtool.api.quantizer import Quantizer
from vqtool.catalog import catalog
from vqtool.diagnosis.measures import neighbour_distances, twin_radius
from vqtool.errors import VqtoolError
from vqtool.model.checkpoint import Checkpoint, fill
from vqtool.model.format import LOSSES, under
from vqtool.model.model import Model
from vqtool.model.seeds import seed_of
from vqtool.model.seen import Seen
from vqtool.quantizers.core.codebook import Codebook
from vqtool.quantizers.core.kmeans import angular_kmeans, kmeans, points_wanted, starting_points
from vqtool.recipe import StageSpec
from vqtool.training.loop import StageLoop
from vqtool.training.runtime import Runtime, Signals
from vqtool.training.starting import quantizer_inputs
from vqtool.training.validate import validate

DEAD = 0.02  # of uniform use; a code with less counts as dead: of 64 inputs a code, at most one


@dataclass(frozen=True, slots=True)
class Reinitialised:
    """What was done to one codebook."""

    name: str
    size: int
    dead: int  # codes that were reinitialised because hardly any input chose them
    duplicates: int  # codes that were freed because another is nearly the same


@torch.no_grad()
def reinitialise_dead_codes(
    quantizer: Quantizer, z: Tensor, mask: Tensor | None, *, merge: bool, seed: int
) -> list[Reinitialised]:
    """Move dead codes (and, with `merge`, duplicates) to where inputs `z` [B, T, D] are far from all codes, in place.

    K-means starts from the other codes. A codebook in which nothing is dead is left as it is, unless one before it
    changed: then its inputs did.

    Raises:
        VqtoolError: the quantizer has no codes that could be moved one by one.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = starting_points(z, mask, max(map(points_wanted, quantizer.codebook_sizes)), generator)
    done: list[Reinitialised] = []
    for name, (book, inputs) in zip(quantizer.codebook_names, quantizer.codebooks_with_inputs(tokens), strict=False):
        assert isinstance(book, Codebook), "as the contract of `codebooks_with_inputs` says"
        size = len(book.codes)
        counts = torch.bincount(book.search(inputs), minlength=size)
        dead = counts < DEAD * len(inputs) / size
        same = duplicates(book.codes, counts * ~dead) if merge else torch.zeros_like(dead)
        keep = ~(dead | same)
        if not bool(keep.all()) or any(each.dead or each.duplicates for each in done):
            known, points = book.codes.detach()[keep].clone(), book.inside(inputs)
            by_angle = book.arithmetic is not None and book.arithmetic.by_angle
            book.set((angular_kmeans if by_angle else kmeans)(points, size, generator, first=known))
        done.append(Reinitialised(name, size, int(dead.sum()), int(same.sum())))
    if not done:
        raise VqtoolError(
            f"a quantizer of the kind {type(quantizer).__name__} has no codes that could be moved one by one",
            hint="fsq and lfq: fewer levels or bits; others: their own losses, `vqtool diagnose` says which",
        )
    return done


def duplicates(codes: Tensor, counts: Tensor) -> Tensor:
    """Which of `codes` [K, d] in use have a more used twin, as `vqtool diagnose` counts them [K]."""
    used = (counts > 0).nonzero().squeeze(1)
    vectors = codes.detach()[used].double().cpu().numpy()
    found = torch.zeros(len(codes), dtype=torch.bool, device=codes.device)
    if len(used) < 3:
        return found
    distances = neighbour_distances(vectors)
    radius = twin_radius(vectors, distances)
    some = used[torch.from_numpy(distances <= radius).to(used.device)]
    some = some[counts[some].argsort(descending=True, stable=True)]
    near = torch.cdist(codes.detach()[some].double(), codes.detach()[some].double()) <= radius
    for place in range(len(some)):  # the most used first: it stays unless one that stays is near
        found[some[place]] = bool((near[place, :place] & ~found[some[:place]]).any())
    return found


@dataclass(frozen=True, slots=True)
class Improvement:
    """A stage trained on after its dead codes were reinitialised."""

    loop: StageLoop
    reinitialised: list[Reinitialised]
    before: Seen
    after: Seen
    steps: int  # how many of the steps the result has had; the validation chose them

    def document(self) -> dict[str, Any]:
        """What was done, and the figures of the validation rows before and after, as plain values."""
        books = [{"name": book.name, "size": book.size, "revived": book.dead, "merged": book.duplicates}
                 for book in self.reinitialised]  # fmt: skip
        return {"steps": self.steps, "codebooks": books, "before": self.before.row, "after": self.after.row}


def improve(
    model: Model, read: Checkpoint, stage: StageSpec, data: Data, runtime: Runtime, *, merge: bool, steps: int
) -> Improvement:
    """Reinitialise dead codes, train `stage` on, and leave the best by validation in the model's parts."""
    model.parts.to(runtime.device)
    seed = seed_of(model.recipe.seed, "improve")
    loop = StageLoop(model, trained_on(stage, steps, read), data, runtime, seed=seed, log=lambda row: None)
    fill(loop.module.losses, under(LOSSES, read.tensors), "the checkpoint")
    before = measured(loop)
    z, mask = quantizer_inputs(loop)
    assert loop.quantizer is not None  # `stage` trains it
    reinitialised = reinitialise_dead_codes(loop.quantizer, z, mask, merge=merge, seed=seed)
    loop.progress.best = measured(loop).row[loop.options.best]
    best = state_of(loop)

    def keep(kind: str) -> None:
        if kind == "best":
            best.update(state_of(loop))

    if steps:
        with Signals() as signals:
            if loop.run(signals, keep):
                raise KeyboardInterrupt
    loop.module.load_state_dict(best)
    model.seen = measured(loop)
    return Improvement(loop, reinitialised, before, model.seen, loop.progress.best_step)


def measured(loop: StageLoop) -> Seen:
    """The validation rows, by the model as it is."""
    return validate(loop.module, loop.model, loop.stage, loop.data, loop.runtime, seed=loop.model.recipe.seed)


def state_of(loop: StageLoop) -> dict[str, Tensor]:
    """A copy of everything that the stage changes."""
    return {name: tensor.detach().clone() for name, tensor in loop.module.state_dict().items()}


def trained_on(stage: StageSpec, steps: int, read: Checkpoint) -> StageSpec:
    """The stage with so many steps, its schedules at their ends: what annealed is not warmed up again."""
    done = int(read.metadata.get("step", 0))
    ends: Mapping[str, object] = {
        s.target: catalog().make("schedule", s.kind, s.options)(1.0, done, done)
        for s in stage.schedules
        if s.target.startswith(("losses.", "task."))  # a part's knobs are in the checkpoint; lr has its own cosine
    }
    train = stage.train.model_copy(
        update={
            "steps": max(1, steps),
            "epochs": None,
            "patience": None,
            "valid_every": None,
            "bypass": 0.0,
            "discriminator": stage.train.discriminator.model_copy(update={"after": 0}),
        }
    )
    return replace(stage, set={**stage.set, **ends}, schedules=(), train=train)
