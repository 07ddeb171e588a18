"""Labelled frames gathered over the batches of a split: what metrics that hold codes against phases share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def token_labels(labels: Tensor, tokens: int) -> Tensor:
    """Labels [B, F] of F frames of a window as [B, tokens]: each token takes the frame that its middle is in."""
    frames = labels.shape[1]
    at = ((torch.arange(tokens, dtype=torch.float64) + 0.5) * frames / tokens).long().clamp_max(frames - 1)
    return labels[:, at.to(labels.device)]


class Frames:
    """The labelled tokens of a split with their stations, in the order of the rows."""

    def __init__(self) -> None:
        self.sizes: tuple[int, ...] = ()
        self._labels: list[np.ndarray] = []
        self._stations: list[np.ndarray] = []
        self._values: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, phase: Tensor, station: Tensor, sizes: Sequence[int] | None, **values: Tensor | None) -> None:
        """`phase` [B, F] with -1 for none, `station` [B], `values` [B, T, ...] each; absent ones are None."""
        given = {name: value.detach().cpu() for name, value in values.items() if value is not None}
        if not given:
            return
        if sizes is not None:
            self.sizes = tuple(int(size) for size in sizes)
        tokens = next(iter(given.values())).shape[1]
        labels = token_labels(phase.cpu(), tokens)
        known = labels >= 0
        self._labels.append(labels[known].numpy())
        self._stations.append(station.cpu()[:, None].expand_as(labels)[known].numpy())
        for name, value in given.items():
            self._values[name].append((value if name == "codes" else value.float())[known].numpy())

    def names(self) -> list[str]:
        """What was given, in order."""
        return list(self._values)

    def labels(self) -> np.ndarray:
        """[n] the phase of each labelled token."""
        return _joined(self._labels, np.int64)

    def stations(self) -> np.ndarray:
        """[n] the station of each."""
        return _joined(self._stations, np.int64)

    def values(self, name: str) -> np.ndarray:
        """[n, ...] what `name` is at each."""
        return _joined(self._values[name], None)


def _joined(parts: Sequence[np.ndarray], kind: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=kind)
