"""Ridge regression from the current's spectrum and quadratic metadata to the voltage, one model a material."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from vqtool.api import Baseline, Batch, DataSpec, Rows
from vqtool.errors import missing_extra
from vqtool_voltage.fields import check_fields, completed, materials
from vqtool_voltage.frames import phase_of, rotate
from vqtool_voltage.physics import derivative
from vqtool_voltage.regression import Quadratic, everything, metadata


class Ridge(Baseline):
    """Linear in the harmonics of dI/dt, whose coefficients are quadratic in the metadata; scikit-learn's Ridge.

    Every pair is rotated to the phase of the current's fundamental and scaled by the rms of dI/dt, and back at the
    end, so it does not care where a period starts. Every waveform weighs the same.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        harmonics: Annotated[int, Ge(1), Doc("highest harmonic of the current that is read")] = 11,
        penalty: Annotated[float, Gt(0), Doc("weight of the squared coefficients")] = 0.1,
    ) -> None:
        super().__init__(spec)
        check_fields(spec, "the baseline `ridge`")
        self.harmonics, self.penalty = min(harmonics, spec.length // 2), penalty

    def fit(self, rows: Rows) -> None:
        """Fit on all training rows. Raises VqtoolError where scikit-learn is not installed."""
        try:
            from sklearn.linear_model import Ridge as Regression
        except ImportError as fault:
            raise missing_extra("scikit-learn", "voltage", "baseline `ridge`") from fault
        batch = everything(rows)
        self.quadratic = Quadratic(metadata(self.spec, batch))
        features, scale, phase = self._features(batch)
        target = rotate(batch["x"].double(), phase)[:, 0] / scale[:, None]
        weight = 1 / target.square().mean(1).clamp_min(1e-300)
        model = Regression(alpha=self.penalty, fit_intercept=False, solver="cholesky")
        model.fit(features.numpy(), target.numpy(), sample_weight=(weight / weight.mean()).numpy())
        self.coefficients = torch.from_numpy(model.coef_)  # [L, features]

    def predict(self, batch: Batch) -> Mapping[str, Tensor]:
        """`x_hat` [B, 1, L] in volt, from `current`, `dt`, `material` and `meta`."""
        features, scale, phase = self._features(completed({name: value.cpu() for name, value in batch.items()}))
        shape = (features @ self.coefficients.T) * scale[:, None]
        return {"x_hat": rotate(shape[:, None], -phase).float()}

    def _features(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, f], the rms of dI/dt (1e4 A/s) [B], and the phase of the current's fundamental [B]."""
        phase = phase_of(batch["current"].double())[:, 0]
        slope = derivative(rotate(batch["current"].double(), phase), batch["dt"].double(), "spectral")[:, 0] * 1e-4
        scale = slope.square().mean(1).sqrt()
        spectrum = torch.fft.rfft(slope / scale[:, None])[:, 1 : self.harmonics + 1] * (2 / self.spec.length)
        parts = torch.cat([torch.view_as_real(spectrum).flatten(1), torch.ones_like(scale)[:, None]], 1)
        material = F.one_hot(batch["material"], materials(self.spec)).to(parts.dtype)
        features = torch.einsum("bs,bq,bm->bsqm", parts, self.quadratic(metadata(self.spec, batch)), material)
        return features.flatten(1), scale, phase
