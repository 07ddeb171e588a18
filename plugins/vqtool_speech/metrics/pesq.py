"""How near speech sounds to the original, as listeners would grade it: PESQ, wideband."""

from __future__ import annotations

from vqtool.api import DataSpec
from vqtool.errors import missing_extra
from vqtool_speech.heard import RATE, Grade, Sound

LOWEST = 1.04  # what the standard's curve gives for its worst raw score, -0.5


class Pesq(Grade):
    """`pesq.wb`: the mean of ITU-T P.862.2 over rows, 1.04 (bad) to 4.64 (no difference).

    A row is a clip, or a stretch of a long one. Sounds of other rates are resampled to the standard's 16 kHz. Rows in
    which the standard finds no speech are left out and counted in `pesq.silent`; one that is decoded to silence counts
    as 1.04. The library `pesq` computes it.
    """

    figure, counted = "pesq.wb", "pesq.silent"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        try:
            import pesq
        except ImportError as error:
            raise missing_extra("pesq", "speech-metrics", "the metric `pesq`") from error
        self.measure = pesq.pesq
        self.no_speech = (pesq.NoUtterancesError, pesq.BufferTooShortError)

    def grade(self, before: Sound, after: Sound) -> float | None:
        try:
            return float(self.measure(RATE, before, after, "wb"))
        except self.no_speech:
            return None
        except ValueError:  # how the library says that `after` has no level
            return LOWEST
