"""How much the codes reveal about the phases: NMI and AMI, beside the same for phases moved in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from vqtool.analysis.agreement import agreements
from vqtool.analysis.labelled import Labelled
from vqtool.api import DataSpec, Metric


class PhaseAgreement(Metric):
    """`codes.nmi` and `codes.ami` of the joint code and the phases, `.group0`, `.group1`, ... of each codebook alone.

    `.rolled` is the null: the phases of each station turned round in time, the mean of five times.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.frames = Labelled()

    def update(self, *, phase: Tensor, station: Tensor, codes: Tensor, codebook_sizes: Sequence[int]) -> None:
        """`phase` [B, F], `station` [B], `codes` [B, T, Q]."""
        self.frames.add(phase, station, codebook_sizes, codes=codes)

    def compute(self) -> Mapping[str, float]:
        """The figures named above; none where no frame has a label."""
        labels = self.frames["labels"]
        if not len(labels):
            return {}
        figures = agreements(self.frames["codes"], labels, self.frames["groups"])
        return {f"codes.{name}": value for name, value in figures.items()}
