"""A router that chooses an expert and a mode of the channel for each window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtool.api import Route
from vqtool.quantizers.routed import Router, features_of


@dataclass(frozen=True, slots=True)
class ModeRoute(Route):
    """A route that also names one of M modes: the ways in which the channel can send a window's codes."""

    mode: Tensor  # [B] long
    mode_probs: Tensor  # [B, M]

    @property
    def side_bits(self) -> int:
        """Bits per window with which the receiver learns the chosen expert and mode."""
        return (self.expert_probs.shape[1] * self.mode_probs.shape[1] - 1).bit_length()


def with_mode(route: Route) -> ModeRoute:
    """The route itself, or the same route in the only mode there is."""
    if isinstance(route, ModeRoute):
        return route
    probs = torch.ones_like(route.expert_probs[:, :1])
    return ModeRoute(route.expert, route.expert_probs, torch.zeros_like(route.expert), probs)


def expected_symbols(route: ModeRoute, tokens: int, widths: Sequence[float], symbol_bits: Sequence[int]) -> Tensor:
    """sum_{r,m} p_r p_m N k_r / log2 M_m [B] for N `tokens`, k_r = `widths` sent bits, log2 M_m = `symbol_bits`."""
    bits = route.expert_probs @ route.expert_probs.new_tensor([tokens * width for width in widths])
    uses = route.mode_probs @ route.mode_probs.new_tensor([1 / width for width in symbol_bits])
    return bits * uses


class ModeRouter(Router):
    """The logits of R experts and of M modes, from the same features."""

    def __init__(self, dim: int, experts: int, *, modes: int = 1) -> None:
        super().__init__(dim, experts + modes)
        self.sizes = [experts, modes]

    def forward(self, tokens: Tensor, real: Tensor) -> ModeRoute:
        experts, modes = self.logits(features_of(tokens.detach(), real)).split(self.sizes, 1)
        return ModeRoute(experts.argmax(1), experts.softmax(1), modes.argmax(1), modes.softmax(1))
