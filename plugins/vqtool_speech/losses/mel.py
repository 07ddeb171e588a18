"""Distance of log mel spectra at several scales: what the ear resolves."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import Gt, MinLen
from torch import Tensor

from vqtool.api import DataSpec, Loss, expect_windows
from vqtool.errors import VqtoolError
from vqtool_speech.spectra import mel_distance


class Mel(Loss):
    """Mean absolute difference of log10 mel magnitudes. Blind to phase, as `stft` is."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        scales: Annotated[tuple[int, ...], MinLen(1), Doc("window lengths, samples")] = (2048, 512),
        bands: Annotated[int, Gt(1), Doc("mel bands")] = 64,
    ) -> None:
        super().__init__(spec)
        expect_windows(spec.extent, "the loss `mel`")
        if spec.sample_rate is None:
            raise VqtoolError("loss `mel` needs data with one sample rate")
        self.rate, self.scales, self.bands = spec.sample_rate, scales, bands

    def forward(self, *, x_hat: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """`x_hat`, `target` [B, C, L], `mask` [B, L] -> scalar."""
        return mel_distance(target.float(), x_hat.float(), self.rate, self.scales, self.bands, mask=mask)
