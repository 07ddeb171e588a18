"""How a router distributes windows over codebooks and modes of the channel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vqtool.api import DataSpec, Metric, Route
from vqtool_semcom.mode_router import with_mode


class RouteShares(Metric):
    """`route.expert<r>` and `route.mode<m>`: the shares of windows that take each.

    `route.certainty` is the mean of the largest probability of an expert: 1 / R of a router that does not discriminate.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.counts: dict[str, Tensor] = {}
        self.certain = 0.0
        self.rows = 0

    def update(self, *, route: Route) -> None:
        """Count the choices of a batch."""
        modes = with_mode(route)
        chosen = {"expert": (route.expert, route.expert_probs), "mode": (modes.mode, modes.mode_probs)}
        for name, (taken, probs) in chosen.items():
            counts = torch.bincount(taken.cpu(), minlength=probs.shape[1])
            self.counts[name] = self.counts.get(name, torch.zeros_like(counts)) + counts
        self.certain += float(route.expert_probs.detach().double().amax(1).sum())
        self.rows += len(route.expert)

    def compute(self) -> Mapping[str, float]:
        """The figures named above; the modes only where there are several."""
        if not self.rows:
            return {}
        shares = {
            f"route.{name}{i}": int(count) / self.rows
            for name, counts in self.counts.items()
            if len(counts) > 1
            for i, count in enumerate(counts)
        }
        return {**shares, "route.certainty": self.certain / self.rows}
