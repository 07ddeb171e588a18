"""The link of a quantizer that routes: each window over the codebook and in the mode that its router chose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vqtool.api import Quantized, Received, Route
from vqtool.quantizers.core.straight_through import AddGradient

if TYPE_CHECKING:
    from vqtool.nn.bit_channel import BitChannel


def routed(
    channel: BitChannel, quantized: Quantized, tables: Sequence[Tensor], level: Tensor, noise: tuple[Tensor, ...]
) -> Received:
    """Send every window by its route, which the receiver is told apart: `side_bits`, taken to arrive unhurt.

    The value is that of the routes alone. In training the router learns the mode from what the other modes would have
    brought through the same noise: its probabilities p_m get the gradient of sum_m p_m z_m; the rest of the gradient
    goes past the channel. `symbols` is what a window takes, one a side bit counted in; `symbols.expected` what it would
    take on average over the router's probabilities, sum_{r,m} p_r p_m N k_r / log2 M_m, with its gradient.
    """
    route, tokens = _route(quantized), quantized.codes.shape[1]
    learns = channel.training and route.mode_probs.requires_grad and len(channel.symbol_bits) > 1
    hard, others = torch.zeros_like(quantized.hard), torch.zeros_like(quantized.hard)
    codes = torch.full_like(quantized.codes, -1)
    figures: dict[str, Tensor] = {}
    for expert, book in enumerate(channel.books):
        for mode in range(len(channel.symbol_bits)):
            taken = (route.expert == expert) & (route.mode == mode)
            rows = ((route.expert == expert) if learns else taken).nonzero().squeeze(1)
            if not len(rows):
                continue
            sent = quantized.codes[rows, :, expert]
            bits = book.hard(sent).flatten(1)
            carried = channel.carry(bits, level[rows], tuple(n[rows] for n in noise), soft=False, mode=mode)
            posterior = book.posterior(carried.llr.view(*sent.shape, book.width))
            arrived = posterior.detach() @ tables[expert].detach()
            if learns:
                others = others.index_add(0, rows, route.mode_probs[rows, mode, None, None] * arrived)
            mine = taken[rows]
            rows = rows[mine]
            hard[rows] = arrived[mine]
            codes[rows, :, expert] = posterior.argmax(-1)[mine]
            wrong = ((carried.llr > 0) != (bits > 0.5)).float().mean(1)
            symbols = torch.full_like(wrong, channel.symbols_of(bits.shape[1], mode) + route.side_bits)
            for name, figure in {**carried.figures, "ber": wrong, "symbols": symbols}.items():
                figures.setdefault(name, level.new_zeros(len(level)))[rows] = figure[mine]
    figures["side_bits"] = torch.full_like(level, route.side_bits)
    figures["symbols.expected"] = expected_symbols(route, tokens, [b.width for b in channel.books], channel.symbol_bits)
    z = hard.clone()
    if quantized.z.requires_grad:
        z = AddGradient.apply(quantized.z, z)
    if learns:
        z = AddGradient.apply(others, z)
    return Received(z, hard, codes, figures=figures)


def expected_symbols(route: Route, tokens: int, widths: Sequence[int], symbol_bits: Sequence[int]) -> Tensor:
    """sum_{r,m} p_r p_m N k_r / log2 M_m [B] for N `tokens`, k_r = `widths` bits a code, log2 M_m = `symbol_bits`."""
    bits = route.expert_probs @ route.expert_probs.new_tensor([tokens * width for width in widths])
    uses = route.mode_probs @ route.mode_probs.new_tensor([1 / width for width in symbol_bits])
    return bits * uses


def _route(quantized: Quantized) -> Route:
    assert quantized.route is not None
    return quantized.route
