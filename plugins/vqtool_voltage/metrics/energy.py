"""How well the estimate keeps the energy that the winding takes up in a period: the mean of voltage times current."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vqtool.api import DataSpec, Metric


class Energy(Metric):
    """|mean(v_hat i) - mean(v i)| / |mean(v i)| of each waveform: its median and 95th percentile, as fractions.

    No mean: where a core loses next to nothing the ratio has no bound.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.errors: list[Tensor] = []

    def update(self, *, x: Tensor, x_hat: Tensor, current: Tensor) -> None:
        """`x`, `x_hat` [B, 1, L] in volt, `current` [B, 1, L] in ampere."""
        v, guess, i = (s.double().cpu().flatten(1) for s in (x, x_hat, current))
        taken = (v * i).sum(1)
        self.errors.append(((guess * i).sum(1) - taken).abs() / taken.abs().clamp_min(torch.finfo(taken.dtype).tiny))

    def compute(self) -> Mapping[str, float]:
        """`energy_error.median` and `energy_error.p95`."""
        if not self.errors:
            return {}
        errors = torch.cat(self.errors)
        return {
            "energy_error.median": float(errors.quantile(0.5)),
            "energy_error.p95": float(errors.quantile(0.95)),
        }
