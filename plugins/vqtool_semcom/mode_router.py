"""A router that chooses an expert and a mode of the channel for each window."""

from __future__ import annotations

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


class ModeRouter(Router):
    """The logits of R experts and of M modes, from the same features."""

    def __init__(self, dim: int, experts: int, *, modes: int = 1) -> None:
        super().__init__(dim, experts + modes)
        self.sizes = [experts, modes]

    def forward(self, tokens: Tensor, real: Tensor) -> ModeRoute:
        experts, modes = self.logits(features_of(tokens.detach(), real)).split(self.sizes, 1)
        return ModeRoute(experts.argmax(1), experts.softmax(1), modes.argmax(1), modes.softmax(1))
