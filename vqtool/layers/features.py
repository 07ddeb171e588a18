"""Standardised features of a batch's conditions: scalars, categories and the spectra of waves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtool.api.data import Batch, DataSpec, Rows

TINY = 1e-12
SMALL_SHARE = 1e-3  # of the wave's rms, below which a harmonic's magnitude counts as none


class Features(nn.Module):
    """[B, n] from a batch: scalars and (with `harmonics`) wave spectra, standardised on training rows, and one-hots.

    The spectrum of a wave is its harmonics over the rms of all that are read: real and imaginary parts and log
    magnitudes; where `sizes` is set, the log of that rms as well.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: DataSpec, *, harmonics: int = 0, sizes: bool = True) -> None:
        super().__init__()
        self.sizes = sizes
        self.waves = sorted(spec.named("wave")) if harmonics else []
        self.scalars = sorted(spec.named("scalar"))
        self.categories = {name: len(field.names) for name, field in sorted(spec.named("category").items())}
        lengths = [spec.fields[name].shape[-1] for name in self.waves]
        self.harmonics = min([harmonics, *(length // 2 - 1 for length in lengths)])
        channels = sum(spec.fields[name].shape[0] for name in self.waves)
        self.standardised = channels * (3 * self.harmonics + sizes) + sum(spec.fields[n].shape[0] for n in self.scalars)
        self.size = self.standardised + sum(self.categories.values())
        self.register_buffer("mean", torch.zeros(self.standardised))
        self.register_buffer("scale", torch.ones(self.standardised))

    @torch.no_grad()
    def fit(self, rows: Batch) -> None:
        """Take mean and standard deviation from the training rows."""
        raw = self._raw(rows)
        self.mean.copy_(raw.mean(0))
        self.scale.copy_(raw.std(0) + 1e-6)

    def forward(self, batch: Batch) -> Tensor:
        """The features of a batch."""
        with torch.autocast(self.mean.device.type, enabled=False):
            parts = [(self._raw(batch) - self.mean) / self.scale]
        parts += [F.one_hot(batch[name], size).to(self.mean.dtype) for name, size in self.categories.items()]
        return torch.cat(parts, dim=1)

    def _raw(self, batch: Batch) -> Tensor:
        parts = [self._spectrum(batch[name].float()) for name in self.waves]
        parts += [batch[name].float().flatten(1) for name in self.scalars]
        rows = len(next(iter(batch.values())))
        return torch.cat(parts, dim=1) if parts else self.mean.new_zeros(rows, 0)

    def _spectrum(self, wave: Tensor) -> Tensor:
        """`wave` [B, C, L] -> [B, C (3 H + sizes)]."""
        lines = torch.fft.rfft(wave, norm="forward")[..., 1 : self.harmonics + 1]
        rms = lines.abs().square().sum(-1, keepdim=True).sqrt() + TINY
        lines = lines / rms
        parts = [lines.real, lines.imag, (lines.abs() + SMALL_SHARE).log(), *([rms.log()] if self.sizes else [])]
        return torch.cat(parts, dim=-1).flatten(1)


def all_rows(rows: Rows) -> Batch:
    """Every row as one batch."""
    return rows.__getitems__(list(range(len(rows))))
