"""The distance of the spectra at several scales: what the losses `stft` and `mel` measure, clip by clip."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vqtool.api import DataSpec, Metric, expect_windows
from vqtool_speech.spectra import mel_distance, stft_distance


class SpectralDistance(Metric):
    """Means over rows: `stft.distance` (spectral convergence plus log magnitudes) and `mel.distance` (log10, bels)."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        expect_windows(spec.extent, "the metric `spectral-distance`", otherwise="psnr")
        self.seen: list[tuple[float, float]] = []

    def update(self, *, x: Tensor, x_hat: Tensor, samples: Tensor | None = None) -> None:
        """`x` and `x_hat` [B, C, L], of which `samples` [B] are real."""
        ends = samples.tolist() if samples is not None else [x.shape[-1]] * len(x)
        for a, b, end in zip(x.detach().cpu().float(), x_hat.detach().cpu().float(), ends, strict=True):
            a, b = a[:, : int(end)], b[:, : int(end)]
            mel = float(mel_distance(a, b, self.spec.sample_rate)) if self.spec.sample_rate else 0.0
            self.seen.append((float(stft_distance(a, b)), mel))

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        if not self.seen:
            return {}
        stft, mel = (sum(column) / len(self.seen) for column in zip(*self.seen, strict=True))
        return {"stft.distance": stft} | ({"mel.distance": mel} if self.spec.sample_rate else {})
