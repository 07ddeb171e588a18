"""How much of the speech can be understood: STOI."""

from __future__ import annotations

import warnings

from vqtool.api import DataSpec
from vqtool.errors import missing_extra
from vqtool_speech.heard import RATE, Grade, Sound


class Stoi(Grade):
    """`stoi`: the mean of the short-time objective intelligibility over rows, 0 to 1 (Taal et al. 2011).

    A row is a clip, or a stretch of a long one. Sounds of other rates are resampled to 16 kHz. Rows with less than .4 s
    of sound are left out and counted in `stoi.silent`. The library `pystoi` computes it.
    """

    figure, counted = "stoi", "stoi.silent"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        try:
            from pystoi import stoi
        except ImportError as error:
            raise missing_extra("pystoi", "speech-metrics", "the metric `stoi`") from error
        self.measure = stoi

    def grade(self, before: Sound, after: Sound) -> float | None:
        if not before.any():
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)  # how the library says that there is too little
                return float(self.measure(before, after, RATE))
        except (RuntimeWarning, ValueError):
            return None
