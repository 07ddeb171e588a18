"""Labelled tokens gathered over the batches of a split: what is asked of codes by label is asked of these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Labels = NDArray[np.int64]


def token_labels(labels: Tensor, tokens: int) -> Tensor:
    """`labels` [B, F] of F frames as [B, tokens]: a token takes the frame that its middle is in; [B] hold for all."""
    if labels.ndim == 1:
        return labels[:, None].expand(-1, tokens)
    frames = labels.shape[1]
    at = ((torch.arange(tokens, dtype=torch.float64) + 0.5) * frames / tokens).long().clamp_max(frames - 1)
    return labels[:, at.to(labels.device)]


class Labelled:
    """The tokens of a split that have a label, with the group each belongs to, in the order of the rows."""

    def __init__(self) -> None:
        self.sizes: tuple[int, ...] = ()
        self.rows = 0  # seen so far
        self.tokens = 0  # of a row
        self._parts: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, labels: Tensor, groups: Tensor, sizes: Sequence[int] | None, **values: Tensor | None) -> None:
        """`labels` [B, F] or [B], -1 for none; `groups` [B]; `values` [B, T, ...] each, None for what there is not."""
        given = {name: value.detach().cpu() for name, value in values.items() if value is not None}
        if not given:
            return
        if sizes is not None:
            self.sizes = tuple(int(size) for size in sizes)
        tokens = self.tokens = next(iter(given.values())).shape[1]
        classes = token_labels(labels.cpu(), tokens)
        known = classes >= 0
        rows = torch.arange(self.rows, self.rows + len(classes))
        self.rows += len(classes)
        own = {
            "labels": classes,
            "groups": groups.cpu()[:, None].expand_as(classes),
            "rows": rows[:, None].expand_as(classes),
            "places": torch.arange(tokens).expand_as(classes),
        }
        for name, value in {**own, **given}.items():
            kept = value[known]
            self._parts[name].append((kept.float() if kept.is_floating_point() else kept).numpy())

    def names(self) -> list[str]:
        """The values there are, in order."""
        return [name for name in self._parts if name not in ("labels", "groups", "rows", "places")]

    def __getitem__(self, name: str) -> Any:
        """[n, ...] a value; "labels", "groups", "rows" (counted from the first) and "places" in the row are [n]."""
        parts = self._parts.get(name)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
