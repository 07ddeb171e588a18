"""Error of the regressed scalars against the side information of a norm."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vqtool.api import Loss


class Sent(Loss):
    """Smooth L1 between standardised scalars: quadratic within 0.05 standard deviations, linear beyond."""

    def forward(self, *, sent_hat: Tensor, sent: Tensor) -> Tensor:
        """Both [B, S]."""
        return F.smooth_l1_loss(sent_hat.float(), sent.float(), beta=0.05)
