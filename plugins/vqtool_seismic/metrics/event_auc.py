"""How well windows with an earthquake are distinguished from noise by the tokens in them, on held-out stations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vqtool.analysis.probe import LinearProbe, area_under_curve, group_folds
from vqtool.api import DataSpec, Metric

PENALTY = 0.1  # the best of 0.01, 0.1 and 1 for k-means tokens, station by station left out of the training split


class EventAuc(Metric):
    """The area under the ROC curve of event against noise: `auc.event`.

    From codes: balanced logistic regression on the roots of the shares of a window's tokens that take each code, fitted
    on the training split; where that has no such windows, on four fifths of the stations of the split itself, five
    times, as `auc.event.folds`. From `event_score` [B], where a baseline gives one: as it is.
    """

    learns = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.train: list[tuple[Tensor, Tensor, Tensor]] = []
        self.held: list[tuple[Tensor, Tensor, Tensor]] = []

    def learn(self, *, event: Tensor, station: Tensor, codes: Tensor | None = None,
              codebook_sizes: Sequence[int] | None = None, event_score: Tensor | None = None) -> None:  # fmt: skip
        """One batch of training rows, named as in `update`."""
        self._take(self.train, event, station, codes, codebook_sizes, event_score)

    def update(self, *, event: Tensor, station: Tensor, codes: Tensor | None = None,
               codebook_sizes: Sequence[int] | None = None, event_score: Tensor | None = None) -> None:  # fmt: skip
        """`event` [B] (1 event, 0 noise, -1 neither), `station` [B], `codes` [B, T, Q] or `event_score` [B]."""
        self._take(self.held, event, station, codes, codebook_sizes, event_score)

    def _take(self, into: list[tuple[Tensor, Tensor, Tensor]], event: Tensor, station: Tensor, codes: Tensor | None,
              sizes: Sequence[int] | None, score: Tensor | None) -> None:  # fmt: skip
        known = (event >= 0).cpu()
        if score is not None:
            x = score.detach().cpu()[known].double()[:, None]
        elif codes is not None and sizes is not None:
            x = shares(codes.detach().cpu()[known], sizes).sqrt()
        else:
            return
        into.append((x, event.cpu()[known], station.cpu()[known]))

    def compute(self) -> Mapping[str, float]:
        """The area, and `auc.windows`, how many windows it is of; nothing where either kind is missing."""
        if not self.held:
            return {}
        x, event, station = (torch.cat(part).numpy() for part in zip(*self.held, strict=True))
        if len(np.unique(event)) < 2:
            return {}
        counts = {"auc.windows": float(len(event))}
        if x.shape[1] == 1:
            return {"auc.event": area_under_curve(event, x[:, 0]), **counts}
        if self.train:
            fitted, known, _ = (torch.cat(part).numpy() for part in zip(*self.train, strict=True))
            if len(np.unique(known)) > 1:
                return {
                    "auc.event": area_under_curve(event, probe().fit(fitted, known).score(x)),
                    **counts,
                }
        scores = np.zeros(len(event))
        for rest, held in group_folds(station):
            if len(np.unique(event[rest])) > 1:
                scores[held] = probe().fit(x[rest], event[rest]).score(x[held])
        return {"auc.event.folds": area_under_curve(event, scores), **counts}


def probe() -> LinearProbe:
    """The classifier of histograms."""
    return LinearProbe(penalty=PENALTY, standardise=False)


def shares(codes: Tensor, sizes: Sequence[int]) -> Tensor:
    """[B, sum of `sizes`] which share of a window's tokens takes each code, of `codes` [B, T, Q]; -1 is no code."""
    counts = [
        F.one_hot(codes[..., q].clamp_min(-1) + 1, int(size) + 1)[..., 1:].double().mean(1)
        for q, size in enumerate(sizes)
    ]
    return torch.cat(counts, 1)
