"""Faraday's law alone: v = -M dI/dt with one inductance for each material."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from annotated_doc import Doc
from torch import Tensor

from vqtool.api import Baseline, Batch, DataSpec, Rows
from vqtool_voltage import physics
from vqtool_voltage.fields import check_fields, completed, materials
from vqtool_voltage.regression import everything


class FaradayLaw(Baseline):
    """M by least squares over the training waveforms of a material, every waveform weighing the same."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        derivative: Annotated[
            Literal["central", "spectral", "forward"], Doc("how dI/dt is taken on the circle of one period")
        ] = "spectral",
    ) -> None:
        super().__init__(spec)
        check_fields(spec, "the baseline `faraday-law`")
        self.derivative = derivative
        self.inductance = torch.zeros(0)

    def fit(self, rows: Rows) -> None:
        """Fit M to all training rows; a material that is not among them gets that of all together."""
        batch = everything(rows)
        v, slope = batch["x"].double(), self._slope(batch)
        self.inductance = physics.pooled_inductance(v, slope, batch["material"], materials(self.spec))

    def predict(self, batch: Batch) -> Mapping[str, Tensor]:
        """`x_hat` [B, 1, L] in volt, from `current`, `dt` and `material`."""
        batch = completed(batch)
        slope = self._slope(batch)
        m = self.inductance[batch["material"].cpu()].to(slope.device)
        return {"x_hat": (-physics.per_wave(m, slope) * slope).float()}

    def _slope(self, batch: Batch) -> Tensor:
        return physics.derivative(batch["current"].double(), batch["dt"].double(), self.derivative)
