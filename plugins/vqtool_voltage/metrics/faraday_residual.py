"""How well the estimated and the measured voltage keep Faraday's law: residuals of v = -M x dI/dt."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vqtool.api import DataSpec, Metric
from vqtool_voltage import physics
from vqtool_voltage.fields import times_and_materials

BANDS: dict[str, int | None] = {"": 1, ".all": None}


class FaradayResidual(Metric):
    """Means over the waveforms of ||v + M x dI/dt|| / ||v||, of the fundamental and (`.all`) of the whole period.

    `residual.model` is that of the estimate (divided by its own norm), `residual.real` that of the measured voltage,
    `residual.excess` their difference: the goal is 0, not a small residual.model. M, one for each material, is the
    least-squares fit to the *measured* voltages of the rows given, each weighing the same; so `residual.real` is a
    figure of the rows alone, the same for every model. The derivative is spectral.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.products: dict[str, list[Tensor]] = {band: [] for band in BANDS}
        self.materials: list[Tensor] = []

    def update(
        self,
        *,
        x: Tensor,
        x_hat: Tensor,
        current: Tensor,
        dt: Tensor | None = None,
        frequency: Tensor | None = None,
        material: Tensor | None = None,
        x_position: Tensor | None = None,
    ) -> None:
        """`x`, `x_hat` [B, 1, L] in volt, `current` [B, 1, L] in ampere, `dt` [B] in seconds, `material` [B]."""
        if dt is None and frequency is None:
            return  # data of another field
        dt, material = times_and_materials(current, dt, frequency, material)
        slope = physics.derivative(current.double().cpu(), dt.double().cpu(), "spectral")
        if x_position is not None:
            slope = slope * physics.per_wave(x_position.double().cpu(), slope)
        for name, harmonics in BANDS.items():
            v, guess, g = (physics.band(s.double().cpu(), harmonics) for s in (x, x_hat, slope))
            pairs = ((v, v), (v, g), (g, g), (guess, guess), (guess, g))
            self.products[name].append(torch.stack([physics.inner(a, b) for a, b in pairs]))
        self.materials.append(material.cpu())

    def compute(self) -> Mapping[str, float]:
        """`residual.{model,real,excess}` and the same with `.all`; fractions."""
        figures: dict[str, float] = {}
        if not self.materials:
            return figures
        material = torch.cat(self.materials)
        for name, products in self.products.items():
            vv, vg, gg, hh, hg = torch.cat(products, 1)
            model, real = _residuals(vv, vg, gg, hh, hg, material)
            figures[f"residual.model{name}"] = float(model.mean())
            figures[f"residual.real{name}"] = float(real.mean())
            figures[f"residual.excess{name}"] = float(model.mean() - real.mean())
        return figures


def _residuals(vv: Tensor, vg: Tensor, gg: Tensor, hh: Tensor, hg: Tensor, material: Tensor) -> tuple[Tensor, Tensor]:
    """Relative residuals [n] of estimate and measurement from the inner products of v, v_hat (h) and the slope g."""
    m = torch.zeros_like(vv)
    for one in material.unique():
        rows = material == one
        m[rows] = -(vg[rows] / vv[rows]).sum() / (gg[rows] / vv[rows]).sum()
    return (
        ((hh + 2 * m * hg + m**2 * gg).clamp_min(0) / hh).sqrt(),
        ((vv + 2 * m * vg + m**2 * gg).clamp_min(0) / vv).sqrt(),
    )
