"""Cross-entropy of a label given a window."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from annotated_doc import Doc
from annotated_types import Interval
from torch import Tensor

from vqtool.api import DataSpec, Loss


class CrossEntropy(Loss):
    """Mean of -log p(label), in nats; labels of -1 (unknown) do not count."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        smoothing: Annotated[
            float,
            Interval(ge=0.0, lt=1.0),
            Doc("share of the target spread evenly over the classes (Szegedy et al. 2016, section 7)"),
        ] = 0.0,
    ) -> None:
        super().__init__(spec)
        self.smoothing = smoothing

    def forward(self, *, logits: Tensor, label: Tensor) -> Tensor:
        """`logits` [B, classes], `label` [B] long -> scalar; 0 if no label is known."""
        total = F.cross_entropy(logits.float(), label, ignore_index=-1, reduction="sum", label_smoothing=self.smoothing)
        return total / (label >= 0).sum().clamp(min=1)
