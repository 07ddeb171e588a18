"""A learned impedance: every harmonic of the voltage from that of the current, by the metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge
from torch import Tensor

from vqtool.api import Baseline, Batch, DataSpec, Rows
from vqtool_voltage.fields import check_fields, completed, materials
from vqtool_voltage.regression import Quadratic, everything, metadata


class Impedance(Baseline):
    """V_h = -j w_h M_h I_h for each harmonic h, M_h complex and quadratic in the metadata, for each material.

    Least squares, every waveform weighing the same. It does not care where a period starts.
    """

    def __init__(
        self, spec: DataSpec, *, harmonics: Annotated[int, Ge(1), Doc("highest harmonic of the voltage")] = 11
    ) -> None:
        super().__init__(spec)
        check_fields(spec, "the baseline `impedance`")
        self.harmonics = min(harmonics, (spec.length - 1) // 2)
        self.coefficients = torch.zeros(0)  # [materials, harmonics, features], complex, in henry

    def fit(self, rows: Rows) -> None:
        """Fit every material and harmonic on its own; a material that is not in `rows` stays at zero volts."""
        batch = everything(rows)
        self.quadratic = Quadratic(metadata(self.spec, batch))
        features, drive = self.quadratic(metadata(self.spec, batch)), self._drive(batch)
        target = torch.fft.rfft(batch["x"][:, 0].double())[:, 1 : self.harmonics + 1]
        weight = 1 / batch["x"].double().square().mean((1, 2)).sqrt().clamp_min(1e-12)
        shape = (materials(self.spec), self.harmonics, features.shape[1])
        self.coefficients = torch.zeros(shape, dtype=torch.complex128)
        for material in batch["material"].unique().tolist():
            rows_of = batch["material"] == material
            for h in range(self.harmonics):
                a = (drive[rows_of, h] * weight[rows_of])[:, None] * features[rows_of]
                b = target[rows_of, h] * weight[rows_of]
                self.coefficients[material, h] = _least_squares(a, b)

    def predict(self, batch: Batch) -> Mapping[str, Tensor]:
        """`x_hat` [B, 1, L] in volt, from `current`, `dt`, `material` and `meta`."""
        batch = completed({name: value.cpu() for name, value in batch.items()})
        features, drive = self.quadratic(metadata(self.spec, batch)), self._drive(batch)
        impedance = torch.einsum("bhf,bf->bh", self.coefficients[batch["material"]], features.to(torch.complex128))
        spectrum = torch.zeros(len(drive), self.spec.length // 2 + 1, dtype=torch.complex128)
        spectrum[:, 1 : self.harmonics + 1] = impedance * drive
        return {"x_hat": torch.fft.irfft(spectrum, n=self.spec.length)[:, None].float()}

    def _drive(self, batch: Batch) -> Tensor:
        """-j w_h I_h, [B, harmonics], in ampere per second (times L, as the transform has it)."""
        spectrum = torch.fft.rfft(batch["current"][:, 0].double())[:, 1 : self.harmonics + 1]
        order = torch.arange(1, self.harmonics + 1, dtype=torch.float64)
        return -1j * 2 * math.pi * order / (batch["dt"].double()[:, None] * self.spec.length) * spectrum


def _least_squares(a: Tensor, b: Tensor) -> Tensor:
    """The x that minimises ||a x - b||, for complex `a` [n, f], `b` [n]."""
    scale = a.abs().square().mean(0).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    gram = (a / scale).mH @ (a / scale)
    ridge = 1e-9 * len(a) * torch.eye(a.shape[1], dtype=a.dtype)
    return torch.linalg.solve(gram + ridge, (a / scale).mH @ b) / scale
