"""What must hold before a stage trains on rows of different lengths: an error here, or padding would count silently."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vqtool.api.data import DataSpec
from vqtool.api.loss import VERDICTS
from vqtool.api.parts import Condition, Conditioner, Norm
from vqtool.api.spec import MASK
from vqtool.api.task import Parts, Task
from vqtool.errors import VqtoolError
from vqtool.model.model import Model
from vqtool.recipe import StageSpec

PADDED = frozenset({"x", "x_hat", "target", "estimate", "latent", "latent_hat"})  # what tasks and data give padded
SHORTER = "these data mask what their shorter rows are padded with"


def check_losses(
    stage: StageSpec, reads: Mapping[str, tuple[frozenset[str], frozenset[str]]], task: Task, spec: DataSpec
) -> None:
    """The task and every loss must leave padding out; the error names what does not."""
    where = f"stage `{stage.name}`"
    padded = PADDED | {name for name, field in spec.fields.items() if field.role in ("signal", "wave")}
    for name, (needs, takes) in reads.items():
        if (needs | takes) & VERDICTS:
            raise VqtoolError(f"loss `{name}` reads a discriminator, which takes rows of one length, and {SHORTER}",
                              hint="without the adversarial losses, or data without a mask", where=where)  # fmt: skip
        if MASK not in takes | needs and (found := sorted((needs | takes) & padded)):
            raise VqtoolError(f"loss `{name}` reads `{found[0]}` without a `mask`, and {SHORTER}",
                              hint="a loss whose `forward` names `mask=None`, or data without a mask",
                              where=where)  # fmt: skip


@torch.no_grad()
def check_lengths(model: Model, stage: StageSpec) -> None:
    """Every part that sees the signal must take shorter rows; tried out with zeros.

    Raises:
        VqtoolError: it names the part.
    """
    spec, parts = model.spec, model.parts
    if not spec.named("mask"):
        return
    waves = spec.named("wave")
    for role, part in parts.items():
        fitted = getattr(type(part), "fit", None) not in (Norm.fit, Conditioner.fit, None)
        if fitted and (isinstance(part, Norm) or (isinstance(part, Conditioner) and waves)):
            raise VqtoolError(f"{named(model, role)} is fitted to rows of one length, and {SHORTER}")
    whole = parts.encoder.stride * parts.encoder.bands
    samples = max(1, spec.length // whole // 2) * whole
    if samples >= spec.length:
        return
    modes = {module: module.training for module in parts.modules()}
    parts.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            tried_out(model, parts, samples)
    finally:
        for module, training in modes.items():
            module.training = training


def tried_out(model: Model, parts: Parts, samples: int) -> None:
    """A row of so many samples through encoder and decoder."""
    x = torch.zeros(1, model.spec.channels, samples, device=model.device)
    width = parts.conditioner.dim if "conditioner" in parts else 0
    condition = Condition(x.new_zeros(1, width), x.new_zeros(1, 1, width)) if width else None
    z = None
    for role in ("encoder", "decoder"):
        if role not in parts:
            continue
        wanted = x.shape if role == "decoder" else (1, samples // parts.encoder.stride, parts.encoder.dim)
        try:
            given = parts[role](x if z is None else z, condition)
        except (RuntimeError, ValueError, IndexError) as error:
            raise unfit(model, role) from error
        if given.shape != wanted:
            raise unfit(model, role)
        z = given


def unfit(model: Model, role: str) -> VqtoolError:
    """The error for a part that takes rows of one length."""
    return VqtoolError(f"{named(model, role)} takes rows of {model.spec.length} samples only, and {SHORTER}",
                       hint="another kind, or data without a mask")  # fmt: skip


def named(model: Model, role: str) -> str:
    """A part by its role and kind."""
    spec = model.recipe.parts.get(role)
    return f"the {role} `{spec.kind}`" if spec is not None else f"the {role}"
