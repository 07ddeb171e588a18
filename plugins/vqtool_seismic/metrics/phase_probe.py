"""What a linear classifier reads from tokens, features and context about noise, P, S and coda, on held-out stations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vqtool.analysis.labelled import Labelled
from vqtool.analysis.probe import LinearProbe, cross_predicted, f1_scores, one_hots
from vqtool.api import DataSpec, Metric
from vqtool_seismic.phases import PHASES

NAMES = {"codes": "probe", "features": "probe.features", "context": "probe.context"}


class PhaseProbe(Metric):
    """Macro-F1 over the four phases of balanced logistic regression, a frame at a time.

    It is fitted on the training split and scored on the split given: `probe.macro_f1` of the one-hots of all codebooks,
    `probe.features.macro_f1` of what the quantizer was given, `probe.context.macro_f1` of what the context network
    makes of it; `.f1.<phase>` and `.accuracy` beside each. Where there was no training row with a phase, it is fitted
    on four fifths of the stations of the split itself and scored on the rest, five times, as `probe.folds.macro_f1`.
    `probe.frames` counts the labelled frames, `probe.stations` the stations they are of.
    """

    learns = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.train, self.held = Labelled(), Labelled()

    def learn(self, *, phase: Tensor, station: Tensor, codes: Tensor | None = None,
              codebook_sizes: Sequence[int] | None = None, features: Tensor | None = None,
              context: Tensor | None = None) -> None:  # fmt: skip
        """One batch of training rows, named as in `update`."""
        self.train.add(phase, station, codebook_sizes, codes=codes, features=features, context=context)

    def update(self, *, phase: Tensor, station: Tensor, codes: Tensor | None = None,
               codebook_sizes: Sequence[int] | None = None, features: Tensor | None = None,
               context: Tensor | None = None) -> None:  # fmt: skip
        """`phase` [B, F], `station` [B]; `codes` [B, T, Q], `features` and `context` [B, T, D], where there are any."""
        self.held.add(phase, station, codebook_sizes, codes=codes, features=features, context=context)

    def compute(self) -> Mapping[str, float]:
        """The figures named above; none where no frame has a label."""
        labels = self.held["labels"]
        if not len(labels):
            return {}
        figures: dict[str, float] = {}
        learned = len(np.unique(self.train["labels"])) > 1
        for name in self.held.names():
            x = self._matrix(self.held, name)
            if learned:
                predicted = LinearProbe().fit(self._matrix(self.train, name), self.train["labels"]).predict(x)
            else:
                predicted = cross_predicted(x, labels, self.held["groups"])
            figures |= _figures(NAMES[name] + ("" if learned else ".folds"), labels, predicted)
        return figures | {"probe.frames": float(len(labels)),
                       "probe.stations": float(len(np.unique(self.held["groups"])))}  # fmt: skip

    @staticmethod
    def _matrix(frames: Labelled, name: str) -> Any:
        value = frames[name]
        return one_hots(value, frames.sizes) if name == "codes" else value


def _figures(name: str, labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    known = predicted >= 0
    if not known.any():
        return {}
    labels, predicted = labels[known], predicted[known]
    scores = f1_scores(labels, predicted, len(PHASES))
    each = {f"{name}.f1.{phase.lower()}": float(s) for phase, s in zip(PHASES, scores, strict=True) if not np.isnan(s)}
    return {
        f"{name}.macro_f1": float(np.nanmean(scores)),
        f"{name}.accuracy": float((labels == predicted).mean()),
        **each,
    }
