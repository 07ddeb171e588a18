"""How near speech sounds to the original, as listeners would grade it: PESQ, wideband."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from vqtool.api import DataSpec, Metric
from vqtool.errors import missing_extra
from vqtool_speech.heard import RATE, heard, rate_of


class Pesq(Metric):
    """`pesq.wb`: the mean of ITU-T P.862.2 over rows, about 1 (bad) to 4.64 (no difference).

    A row is a clip, or a stretch of a long one. Sounds of other rates are resampled to the standard's 16 kHz. Rows in
    which the standard finds no speech are left out and counted in `pesq.silent`. The library `pesq` computes it.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.rate = rate_of(spec, "the metric `pesq`")
        try:
            import pesq
        except ImportError as error:
            raise missing_extra("pesq", "speech-metrics", "the metric `pesq`") from error
        self.measure, self.silent = pesq.pesq, 0
        self.no_speech = (pesq.NoUtterancesError, pesq.BufferTooShortError)
        self.values: list[float] = []

    def update(self, *, x: Tensor, x_hat: Tensor, samples: Tensor | None = None) -> None:
        """`x` and `x_hat` [B, C, L], of which `samples` [B] are real."""
        for before, after in heard(self.rate, x, x_hat, samples):
            try:
                value = float(self.measure(RATE, before, after, "wb"))
            except self.no_speech:
                self.silent += 1
            else:
                self.values.append(value)

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        found = {"pesq.wb": float(np.mean(self.values))} if self.values else {}
        return found | ({"pesq.silent": float(self.silent)} if self.silent else {})
