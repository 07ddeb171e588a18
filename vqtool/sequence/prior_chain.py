"""A prior over a frozen tokenizer: how its parts are wired, and what every task that trains one shares."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from vqtool.api.data import Batch, DataSpec
from vqtool.api.parts import Condition
from vqtool.api.task import Make, Parts
from vqtool.errors import VqtoolError
from vqtool.sequence.chain import from_latents

PRIOR_PARTS = frozenset(
    {"norm", "conditioner", "encoder", "quantizer", "decoder", "prior_conditioner", "regressor", "prior"}
)


def build_prior(make: Make, spec: DataSpec) -> None:
    """The tokenizer's parts, then the prior over its codes."""
    norm = make("norm", spec, optional=True)
    conditioner = make("conditioner", spec, optional=True)
    width = conditioner.dim if conditioner is not None else 0
    encoder = make("encoder", spec.channels, spec.extent, width)
    quantizer = make("quantizer", encoder.dim)
    make("decoder", encoder.dim, spec.channels, spec.extent, encoder.stride, width)
    own = make("prior_conditioner", spec, optional=True)
    width = own.dim if own is not None else 0
    if norm.sends and own is None:
        raise VqtoolError(
            f"the norm has side information, {', '.join(f'`{name}`' for name in norm.sends)}, and nothing predicts it",
            hint="a part `[prior_conditioner]` and a part `[regressor]`",
        )
    sizes, tokens = tuple(quantizer.codebook_sizes), prod(spec.signal.shape[1:]) // encoder.stride
    if norm.sends:
        make("regressor", width, tokens * encoder.dim, len(norm.sends))
    make("prior", sizes, tokens, width, quantizer.vectors())


def adopt_codebooks(parts: Parts) -> None:
    """Let the prior read the codebooks of the now trained quantizer."""
    vectors = parts.quantizer.vectors()
    if vectors is not None:
        parts.prior.copy_vectors(vectors)


def prior_condition(parts: Parts, normed: Batch) -> Condition | None:
    """The prior's own condition, from a normalised batch; None where nothing reads it."""
    return parts.prior_conditioner(normed) if "prior_conditioner" in parts else None


def decode_signal(
    parts: Parts, condition: Condition | None, z: Tensor, batch: Batch, normed: Batch
) -> tuple[Tensor, Tensor]:
    """Latents [B, T, D] to a signal [B, C, L] in its own units, and the scalars [B, S] that were regressed for it."""
    nothing = condition is None or "regressor" not in parts
    sent = z.new_zeros(len(z), 0) if nothing else parts.regressor(condition, z)
    return from_latents(parts, z, sent, batch, normed), sent


@torch.no_grad()
def token_figures(logits: Tensor, codes: Tensor) -> dict[str, Tensor]:
    """`tokens.accuracy`: the share of the codes [B, T, Q] that are the likeliest under `logits` [B, T, Q, K].

    Codes of -1 (masked) do not count.
    """
    counted = codes >= 0
    return {"tokens.accuracy": ((logits.argmax(-1) == codes) & counted).sum() / counted.sum().clamp_min(1)}
