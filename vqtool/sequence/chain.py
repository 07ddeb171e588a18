"""Signals to codes and back over built parts: the chain that every task with a quantizer shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqtool.api.parts import Condition
from vqtool.api.spec import Batch
from vqtool.api.task import Parts
from vqtool.errors import VqtoolError
from vqtool.layers.lengths import Group, Lengths


@dataclass(frozen=True, slots=True)
class Encoded:
    """What lies in front of the quantizer, for rows of one length."""

    normed: Batch  # by the norm
    sent: Tensor  # [b, S] the side information
    condition: Condition | None
    z: Tensor  # [b, t, D]


def condition_of(parts: Parts, normed: Batch) -> Condition | None:
    """The condition of a batch normalised by the norm; None where the recipe names no conditioner."""
    return parts.conditioner(normed) if "conditioner" in parts else None


def encoded(parts: Parts, group: Group, vary: Callable[[Tensor], Tensor] | None = None) -> Encoded:
    """Rows of one length through norm, conditioner and encoder; `vary` changes the normalised signal on the way."""
    normed, sent = parts.norm(group.batch)
    if vary is not None:
        normed = {**normed, "x": vary(normed["x"])}
    condition = condition_of(parts, normed)
    return Encoded(normed, sent, condition, parts.encoder(group.filled(normed["x"]), condition))


def encode(parts: Parts, batch: Batch) -> dict[str, Tensor]:
    """`codes` [B, T, Q], the side information `sent` [B, S], and the encoder's output `z` [B, T, D].

    Where rows are padded, T is that of the longest; the other tokens have the code -1 and a `z` of zeros.
    """
    lengths = Lengths.of(parts, batch)
    each = [encoded(parts, group) for group in lengths.groups]
    z = lengths.join_tokens([one.z for one in each])
    codes = parts.quantizer(z, lengths.token_mask()).codes
    return {"codes": codes, "sent": lengths.join_rows([one.sent for one in each]), "z": z}


def latents(parts: Parts, batch: Batch, vary: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor | None]:
    """What the quantizer reads [B, T, D], and the mask [B, T] of real tokens; None where none are padded."""
    lengths = Lengths.of(parts, batch)
    z = lengths.join_tokens([encoded(parts, group, vary).z for group in lengths.groups])
    return z, lengths.token_mask()


def one_length(parts: Parts, batch: Batch) -> Group:
    """A batch of rows of one length, without padding.

    Raises:
        VqtoolError: they have several. Evaluation shows a task one at a time.
    """
    group, *others = Lengths.of(parts, batch).groups
    if others:
        raise VqtoolError("rows of several lengths are estimated one length at a time", exit_code=1)
    return group


def join_tokens(lengths: Lengths, each: Sequence[Mapping[str, Tensor | None]], *names: str) -> dict[str, Any]:
    """Outputs [b, t, ...] of each group as [B, T, ...]: for padded tokens `codes` are -1, others 0; None stays None."""
    joined: dict[str, Any] = {}
    for name in names:
        parts = [part for one in each if (part := one[name]) is not None]
        joined[name] = lengths.join_tokens(parts, -1 if name == "codes" else 0) if parts else None
    return joined


def decode(parts: Parts, codes: Tensor, sent: Tensor, batch: Batch) -> Tensor:
    """Codes [B, T, Q] and side information [B, S] to signals [B, C, L] in their own units.

    Of the batch only conditions are read, and the mask.
    """
    return from_latents(parts, parts.quantizer.decode(codes), sent, batch)


def from_latents(parts: Parts, z: Tensor, sent: Tensor, batch: Batch, normed: Batch | None = None) -> Tensor:
    """Latents [B, T, D] and side information [B, S] to signals [B, C, L] in their own units.

    `normed` is the batch as the norm gives it, where the caller has it already.
    """
    lengths = Lengths.of(parts, batch)
    known = lengths.split(normed) if normed is not None else [None] * len(lengths.groups)
    each = zip(lengths.groups, lengths.tokens(z), lengths.rows(sent), known, strict=True)
    return lengths.join([_signal(parts, group, z, sent, normed) for group, z, sent, normed in each])


def _signal(parts: Parts, group: Group, z: Tensor, sent: Tensor, normed: Batch | None) -> Tensor:
    """`from_latents` of rows of one length."""
    condition = None
    if "conditioner" in parts:
        given = parts.conditioner(parts.norm.condition(group.batch) if normed is None else normed)
        condition = Condition(given.vector.float(), None if given.tokens is None else given.tokens.float())
    with torch.autocast(z.device.type, enabled=False):
        return parts.norm.invert(decode_normed(parts, z.float(), condition, group), group.batch, sent)


def decode_normed(parts: Parts, z: Tensor, condition: Condition | None, group: Group | None = None) -> Tensor:
    """Latents [B, T, D] to a signal [B, C, L] normalised by the norm, without what filled up its first or last token.

    Images [B, C, H, W] come in whole tokens.
    """
    x, extent = parts.decoder(z, condition), parts.norm.spec.extent
    if group is not None and group.rows is not None:
        return group.emptied(x)
    return x[..., -extent % parts.encoder.stride :] if isinstance(extent, int) else x
