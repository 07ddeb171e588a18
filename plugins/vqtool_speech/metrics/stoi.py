"""How much of the speech can be understood: STOI."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from vqtool.api import DataSpec, Metric
from vqtool.errors import missing_extra
from vqtool_speech.heard import RATE, heard, rate_of


class Stoi(Metric):
    """`stoi`: the mean of the short-time objective intelligibility over rows, 0 to 1 (Taal et al. 2011).

    A row is a clip, or a stretch of a long one. Sounds of other rates are resampled to 16 kHz. Rows with less than .4 s
    of sound are left out and counted in `stoi.silent`. The library `pystoi` computes it.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.rate = rate_of(spec, "the metric `stoi`")
        try:
            from pystoi import stoi
        except ImportError as error:
            raise missing_extra("pystoi", "speech-metrics", "the metric `stoi`") from error
        self.measure, self.silent = stoi, 0
        self.values: list[float] = []

    def update(self, *, x: Tensor, x_hat: Tensor, samples: Tensor | None = None) -> None:
        """`x` and `x_hat` [B, C, L], of which `samples` [B] are real."""
        for before, after in heard(self.rate, x, x_hat, samples):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", RuntimeWarning)  # how the library says that there is too little
                    self.values.append(float(self.measure(before, after, RATE)))
            except (RuntimeWarning, ValueError):
                self.silent += 1

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        found = {"stoi": float(np.mean(self.values))} if self.values else {}
        return found | ({"stoi.silent": float(self.silent)} if self.silent else {})
