"""How far the vectors that the receiver works with are from those that were sent."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Loss, Quantized, Received
from vqtool_semcom.distance import distance


class ReceivedLatent(Loss):
    """Mean |received - sg(sent)|^2 / var(sg(sent)): what noise and receiver make of the vectors of the sent codes.

    The sent side is constant. `received` is what training passes on, so the gradient goes where `channel.gradient`
    says; 1 is a receiver that always gives the mean.
    """

    def forward(self, *, received: Received, quantized: Quantized) -> Tensor:
        """[B, T, D] each -> scalar."""
        return distance(received.z, quantized.hard)
