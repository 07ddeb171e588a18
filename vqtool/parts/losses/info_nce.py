"""Cross-entropy of the right candidate among the wrong ones, by similarity."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor

from vqtool.api import DataSpec, Loss


class InfoNCE(Loss):
    """Mean of -log(exp(s+ / temperature) / sum over candidates exp(s / temperature)), in nats.

    van den Oord et al. 2018 (arXiv 1807.03748, equation 4); temperature as in wav2vec 2.0 (Baevski et al. 2020, arXiv
    2006.11477, equation 3). Where the right candidate is the only one the loss and its gradient are 0.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        temperature: Annotated[float, Gt(0), Doc("similarities are divided by it")] = 0.1,
    ) -> None:
        super().__init__(spec)
        self.temperature = temperature

    def forward(self, *, similarities: Tensor, positive: Tensor) -> Tensor:
        """`similarities` [M, N], -inf for what is not a candidate; `positive` [M], the place of the right one."""
        total = F.cross_entropy(similarities.float() / self.temperature, positive, reduction="sum")
        return total / max(len(positive), 1)
