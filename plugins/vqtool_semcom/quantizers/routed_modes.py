"""Experts of different sizes, where the router also chooses how the codes of a window are sent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge
from torch import Tensor

from vqtool.api import Nested, Route
from vqtool.quantizers.core.composable import Layout, Make
from vqtool.quantizers.routed import EXPERTS, Routed, balance
from vqtool.quantizers.vq import Weights
from vqtool_semcom.mode_router import ModeRouter, with_mode

Modes = Annotated[int, Ge(1), Doc("modes of the channel that the router chooses among")]


class RoutedModes(Routed):
    """`routed` whose router also chooses one of the `modes` of the channel for each window.

    `channel.order` lists the modes. With several of them, `balance` is the mean over experts and modes.
    """

    def __init__(
        self,
        dim: int,
        layout: Layout = "BTD",
        weights: Weights = None,
        *,
        of: Annotated[Sequence[Make], Nested("quantizer", many=True), Doc("the experts, two or more")] = EXPERTS,
        modes: Modes = 1,
    ) -> None:
        super().__init__(dim, layout, weights, partial(ModeRouter, modes=modes), of=of)

    def balance(self, route: Route, real: Tensor) -> Tensor:
        """The mean balance of experts and, where there are several, of modes."""
        of_experts, route = super().balance(route, real), with_mode(route)
        if route.mode_probs.shape[1] == 1:
            return of_experts
        return torch.stack([of_experts, balance(route.mode_probs, route.mode, real)]).mean()
