"""The log-spectrogram of each frame as features: what a linear probe reads without any learning."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vqtool.api import Baseline, Batch, DataSpec
from vqtool_seismic.spectra import frame_of, log_spectra


class LogSpectrogram(Baseline):
    """Log power of the three components over two frames' length, a frame at a time, in place of learned features."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.frame = frame_of(spec)

    def predict(self, batch: Batch) -> Mapping[str, Tensor]:
        """`features` [B, T, D]."""
        return {"features": log_spectra(batch["x"].cpu(), self.frame)}
