"""A channel that carries the bits of codes: what channels of any kind of noise share."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from vqtool.api import Channel, Quantized, Quantizer, Received
from vqtool.errors import VqtoolError
from vqtool.nn.index_bits import IndexBits
from vqtool.nn.labels import Table
from vqtool.nn.routed_link import routed
from vqtool.quantizers.core.straight_through import AddGradient
from vqtool.quantizers.core.tokens import own_precision

Gradient = Literal["straight-through", "link", "both"]


@dataclass(frozen=True, slots=True)
class Carried:
    """Bits behind the noise: n bits a window."""

    llr: Tensor  # [B, n]  log P(bit = 1) / P(bit = 0)
    sent: Mapping[str, Tensor] = field(default_factory=dict)  # what was put on the way, to compare soft with hard
    figures: Mapping[str, Tensor] = field(default_factory=dict)  # [B] each


class BitChannel(Channel):
    """Codes -> labels -> bits -> `carry` (a subclass's noise) -> LLRs -> P(code | received) -> the mean code vector.

    The soft path sends, in place of a code's bits, each bit's probability under the quantizer's distribution. Training
    sends p = soft + hard_share (bits - soft), the bracket without a gradient: the share `hard` of the deployed path in
    the value, the soft path's gradient. It goes back through the noise to the quantizer's `probs` ("link"), past
    channel and quantizer's choice to the latents as if z had arrived unchanged ("straight-through", all that is left
    where a quantizer gives no probabilities), or as the sum of the two ("both").

    Where a quantizer routes, a window's codes are those of one codebook and go in one mode, both told to the receiver
    (see `vqtool.nn.routed_link`).
    """

    knobs = frozenset({"hard"})
    symbol_bits: tuple[int, ...] = (1,)  # bits that one use of the channel carries, by the mode of sending
    prepared: Tensor

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        *,
        labels: Table,
        radius: int | None,
        hard: float,
        gradient: Gradient,
    ) -> None:
        super().__init__()
        self.books = nn.ModuleList(IndexBits(size, radius=radius) for size in codebook_sizes)
        self.width = sum(book.width for book in self.books)  # bits per token
        self.how, self.hard, self.gradient = labels, hard, gradient
        self.register_buffer("prepared", torch.zeros((), dtype=torch.bool))

    def prepare(self, tables: Sequence[Tensor]) -> None:
        """Label the codes; once only, since whatever is trained afterwards is trained for these labels."""
        if self.prepared:
            return
        self.prepared.fill_(True)
        for book, table in zip(self.books, tables, strict=True):
            book.relabel(self.how, table)

    def for_codes(self, codebook_sizes: Sequence[int], labels: Table) -> BitChannel:
        """The same noise for other codes, weighed by all that may have been sent."""
        other = copy.deepcopy(self)
        other.books = nn.ModuleList(IndexBits(size) for size in codebook_sizes)
        other.width, other.how = sum(book.width for book in other.books), labels
        other.prepared.fill_(False)
        return other

    def carry(self, bits: Tensor, level: Tensor, noise: tuple[Tensor, ...], *, soft: bool, mode: int = 0) -> Carried:
        """Bits or, where `soft`, probabilities of ones [B, n] through the noise at `level` [B]; differentiable.

        The noise may be for more than n bits: it is taken from the front.
        """
        raise NotImplementedError

    def blend(self, soft: Carried, hard: Carried, bits: Tensor, level: Tensor, noise: tuple[Tensor, ...]) -> Carried:
        """What training sends, given the blended `bits`; a channel with stages of its own may blend there as well."""
        return self.carry(bits, level, noise, soft=True)

    def training_level(self, rows: int, device: torch.device) -> Tensor:
        """A level [B] for each row of a training batch."""
        raise NotImplementedError

    def bits_of(self, quantized: Quantized) -> int:
        """n, the bits of a window; the most there are, where it takes one of several codebooks."""
        width = self.width if quantized.route is None else max(book.width for book in self.books)
        return quantized.codes.shape[1] * width

    def symbols_of(self, bits: int, mode: int = 0) -> int:
        """S, the uses of the channel that carry `bits` bits of a window."""
        return -(-bits // self.symbol_bits[mode])

    def forward(
        self,
        quantized: Quantized,
        tables: Sequence[Tensor],
        *,
        level: float | None = None,
        noise: tuple[Tensor, ...] | None = None,
    ) -> Received:
        rows, device = quantized.codes.shape[0], quantized.z.device
        if level is not None:
            levels = torch.full((rows,), float(level), device=device)
        elif self.training:
            levels = self.training_level(rows, device)
        else:
            levels = torch.full((rows,), float(self.levels()[""]), device=device)
        modes = 1 if quantized.route is None else quantized.route.mode_probs.shape[1]
        if modes != len(self.symbol_bits):
            raise VqtoolError(
                f"the channel has {len(self.symbol_bits)} ways to send, and the quantizer chooses among {modes}",
                hint=f"a quantizer that routes, with `modes` = {len(self.symbol_bits)}: mixture-ema",
            )
        noise = self.draw(quantized) if noise is None else noise
        with own_precision(quantized.z):
            return self._received(quantized, tables, levels, noise)

    def _received(
        self, quantized: Quantized, tables: Sequence[Tensor], level: Tensor, noise: tuple[Tensor, ...]
    ) -> Received:
        if quantized.route is not None:
            return routed(self, quantized, tables, level, noise)
        bits = torch.cat(
            [book.hard(column) for book, column in zip(self.books, quantized.codes.unbind(-1), strict=True)], -1
        ).flatten(1)
        hard = self.carry(bits, level, noise, soft=False)
        posterior = self.posteriors(hard.llr, quantized)
        arrived = self.mean(posterior, tables)
        figures = {**hard.figures, "ber": ((hard.llr > 0) != (bits > 0.5)).float().mean(1)}
        codes = torch.stack([p.argmax(-1) for p in posterior], -1)
        if quantized.probs is None:
            return Received(self._past(arrived, quantized), arrived.detach(), codes, None, {}, figures)
        soft_bits = self._soft_bits(quantized)
        soft = self.carry(soft_bits, level, noise, soft=True)
        arrived_soft = self.mean(self.posteriors(soft.llr, quantized), tables)
        stages = {"bits": (soft_bits, bits), "llr": (soft.llr, hard.llr), "vectors": (arrived_soft, arrived)}
        stages |= {name: (soft.sent[name], hard.sent[name]) for name in hard.sent}
        figures |= {f"{name}.soft": figure for name, figure in soft.figures.items() if name != "ber.theory"}
        z = arrived
        if self.training:
            z = self._blended(quantized, tables, (soft_bits, bits), (soft, hard), (arrived_soft, arrived), level, noise)
        return Received(z, arrived.detach(), codes, arrived_soft, stages, figures)

    def _blended(
        self,
        quantized: Quantized,
        tables: Sequence[Tensor],
        bits: tuple[Tensor, Tensor],
        carried: tuple[Carried, Carried],
        arrived: tuple[Tensor, Tensor],
        level: Tensor,
        noise: tuple[Tensor, ...],
    ) -> Tensor:
        """What flows on in training; each pair is (soft, hard)."""
        if self.gradient == "straight-through":
            return self._past(torch.lerp(arrived[0].detach(), arrived[1], self.hard), quantized)
        if self.hard == 0:
            z = arrived[0]
        else:
            mixed = toward(*bits, self.hard)
            z = self.mean(self.posteriors(self.blend(*carried, mixed, level, noise).llr, quantized), tables)
        return z if self.gradient == "link" else self._past(z, quantized)

    @staticmethod
    def _past(arrived: Tensor, quantized: Quantized) -> Tensor:
        """The value of `arrived`, its own gradient and, besides, the identity to what the quantizer passed on."""
        return AddGradient.apply(quantized.z, arrived) if quantized.z.requires_grad else arrived

    def _soft_bits(self, quantized: Quantized) -> Tensor:
        probs = quantized.probs
        if probs is None:
            raise VqtoolError("the quantizer gives no probabilities to send")
        each = [book.soft(probs[:, :, q, : book.size]) for q, book in enumerate(self.books)]
        return torch.cat(each, -1).flatten(1)

    def posteriors(self, llr: Tensor, quantized: Quantized) -> list[Tensor]:
        """P(code | received), Q of [B, T, K_q], from the LLRs [B, n] of a window."""
        by_token = llr.view(llr.shape[0], quantized.codes.shape[1], self.width)
        parts = by_token.split([book.width for book in self.books], -1)
        return [book.posterior(part) for book, part in zip(self.books, parts, strict=True)]

    @staticmethod
    def mean(posteriors: Sequence[Tensor], tables: Sequence[Tensor]) -> Tensor:
        """The mean code vectors [B, T, D], summed over codebooks."""
        return torch.stack([p @ table for p, table in zip(posteriors, tables, strict=True)]).sum(0)


def toward(soft: Tensor, hard: Tensor, share: float) -> Tensor:
    """soft + share (hard - soft), with the gradient of `soft`."""
    return soft + share * (hard - soft).detach()


def code_tables(quantizer: Quantizer) -> tuple[Tensor, ...]:
    """The vectors of every codebook's codes, Q of [K_q, D], whose sum a token decodes to; with their gradient.

    Raises:
        VqtoolError: several codebooks that do not add up.
    """
    sizes = quantizer.codebook_sizes
    vectors = quantizer.vectors()
    if len(sizes) > 1 and vectors is None:
        raise VqtoolError(
            "a channel needs code vectors that add up, and this quantizer's do not", hint="residual-ema or product-ema"
        )
    device = (
        vectors[0].device if vectors is not None else next(iter([*quantizer.parameters(), *quantizer.buffers()])).device
    )
    tables = []
    for q, size in enumerate(sizes):
        codes = torch.full((1, size, len(sizes)), -1, device=device)
        codes[0, :, q] = torch.arange(size, device=device)
        tables.append(quantizer.decode(codes)[0])
    return tuple(tables)
