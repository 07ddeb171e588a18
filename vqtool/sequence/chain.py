"""Signals to codes and back over built parts: the chain that every task with a quantizer shares."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api.data import Batch
from vqtool.api.parts import Condition
from vqtool.api.task import Parts


def condition_of(parts: Parts, normed: Batch) -> Condition | None:
    """The condition of a batch normalised by the norm; None where the recipe names no conditioner."""
    return parts.conditioner(normed) if "conditioner" in parts else None


def encode(parts: Parts, batch: Batch) -> dict[str, Tensor]:
    """`codes` [B, T, Q], the side information `sent` [B, S], and the encoder's output `z` [B, T, D]."""
    normed, sent = parts.norm(batch)
    z = to_latents(parts, normed)
    return {"codes": parts.quantizer(z).codes, "sent": sent, "z": z}


def to_latents(parts: Parts, normed: Batch) -> Tensor:
    """A batch normalised by the norm to latents [B, T, D]."""
    return parts.encoder(normed["x"], condition_of(parts, normed))


def decode(parts: Parts, codes: Tensor, sent: Tensor, batch: Batch) -> Tensor:
    """Codes [B, T, Q] and side information [B, S] to signals [B, C, L] in their own units; reads conditions only."""
    return from_latents(parts, parts.quantizer.decode(codes), sent, batch)


def from_latents(parts: Parts, z: Tensor, sent: Tensor, batch: Batch, normed: Batch | None = None) -> Tensor:
    """Latents [B, T, D] and side information [B, S] to signals [B, C, L] in their own units.

    `normed` is the batch as the norm gives it, where the caller has it already.
    """
    condition = None
    if "conditioner" in parts:
        given = parts.conditioner(parts.norm.condition(batch) if normed is None else normed)
        condition = Condition(given.vector.float(), None if given.tokens is None else given.tokens.float())
    with torch.autocast(z.device.type, enabled=False):
        return parts.norm.invert(decode_normed(parts, z.float(), condition), batch, sent)


def decode_normed(parts: Parts, z: Tensor, condition: Condition | None) -> Tensor:
    """Latents [B, T, D] to a signal [B, C, L] normalised by the norm, without what filled up its first token.

    Images [B, C, H, W] come in whole tokens.
    """
    x, extent = parts.decoder(z, condition), parts.norm.spec.extent
    return x[..., -extent % parts.encoder.stride :] if isinstance(extent, int) else x
