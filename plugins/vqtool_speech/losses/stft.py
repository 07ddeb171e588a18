"""Multi-scale STFT distance: spectral convergence and log magnitudes at windows of 128 to 2048 samples."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import MinLen
from torch import Tensor

from vqtool.api import DataSpec, Loss, expect_windows
from vqtool_speech.spectra import SCALES, stft_distance


class Stft(Loss):
    """Blind to phase: alone it lets the waveform go, so it stands beside `mse` or `l1` with a small weight."""

    def __init__(
        self, spec: DataSpec, *, scales: Annotated[tuple[int, ...], MinLen(1), Doc("window lengths, samples")] = SCALES
    ) -> None:
        super().__init__(spec)
        expect_windows(spec.extent, "the loss `stft`")
        self.scales = scales

    def forward(self, *, x_hat: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """`x_hat`, `target` [B, C, L], `mask` [B, L] -> scalar."""
        return stft_distance(target.float(), x_hat.float(), self.scales, mask=mask)
