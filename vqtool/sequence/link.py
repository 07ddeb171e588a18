"""A channel behind the quantizer: what the tasks that have one share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from vqtool.api.parts import Received
from vqtool.api.quantizer import Quantized, Quantizer
from vqtool.api.spec import Batch
from vqtool.api.task import Parts
from vqtool.errors import VqtoolError


class Link:
    """The two ends of a channel, for a task that says by `_coded` what becomes of a batch before it."""

    tokens: int  # T, of a whole window

    def _coded(self, parts: Parts, batch: Batch) -> tuple[Tensor, Quantized | None]:
        """The encoder's output [B, T, D], and that of the quantizer where there is one."""
        raise NotImplementedError

    def begin(self, parts: Parts) -> None:
        """Give the channel the vectors of the codes, as they start."""
        if "channel" in parts:
            parts.channel.prepare(code_tables(parts.quantizer))

    def send(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """What the channel is given for a batch, by its own names."""
        return parts.channel.send(self._coded(parts, batch)[1])

    def observe(self, parts: Parts, batch: Batch) -> Sequence[Mapping[str, Tensor]]:
        """What arrives of a batch at the channel's own level."""
        return parts.channel.observe(self._coded(parts, batch)[1], code_tables(parts.quantizer))

    def _vectors(self, parts: Parts, arrived: Mapping[str, Tensor]) -> Tensor:
        """The vectors [B, T, D] from what arrived.

        Raises:
            VqtoolError: the quantizer routes, so what arrived does not say which codes were sent.
        """
        if parts.quantizer.topology == "routed":
            raise VqtoolError(
                "what arrives does not say which route each window took", hint="vqtool transmit CKPT INPUT"
            )
        z: Tensor = parts.channel.receive(arrived, code_tables(parts.quantizer), self.tokens)
        return z


def the_soft(got: Quantized | Received) -> Tensor:
    """The vectors of the soft path [B, T, D].

    Raises:
        VqtoolError: the quantizer gives no probabilities.
    """
    if got.soft is None:
        raise VqtoolError("this model has no soft path: its quantizer gives no probabilities",
                          hint="soft-ema and soft do")  # fmt: skip
    return got.soft


def means(received: Received) -> dict[str, Tensor]:
    """The means over a batch of what the channel reports."""
    return {name: each.float().mean() for name, each in received.figures.items()}


def code_figures(parts: Parts, quantized: Quantized) -> dict[str, Any]:
    """What metrics read of the codes that are sent."""
    named: dict[str, Any] = {
        "codes": quantized.codes,
        "codebook_sizes": parts.quantizer.codebook_sizes,
        "codebook_names": parts.quantizer.codebook_names,
    }
    if quantized.route is not None:
        named["route"] = quantized.route
    if quantized.probs is not None:
        named["probs"] = quantized.probs
    return named


def code_tables(quantizer: Quantizer) -> tuple[Tensor, ...]:
    """The vectors of every codebook's codes, Q of [K_q, D], whose sum a token decodes to; with their gradient.

    Raises:
        VqtoolError: several codebooks that do not add up.
    """
    sizes = quantizer.codebook_sizes
    if not quantizer.additive:
        raise VqtoolError(
            "a channel needs code vectors that add up, and those of this quantizer do not",
            hint="residual-ema, product-ema, and grouped of fsq or lfq have such",
        )
    device = next(chain(quantizer.vectors() or (), quantizer.parameters(), quantizer.buffers())).device
    tables = []
    for q, size in enumerate(sizes):
        codes = torch.full((1, size, len(sizes)), -1, device=device)
        codes[0, :, q] = torch.arange(size, device=device)
        tables.append(quantizer.decode(codes)[0])
    return tuple(tables)
