"""The expected number of symbols per window under the router's probabilities: the rate loss of a mixture."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Loss, Received
from vqtool.errors import VqtoolError


class ExpectedSymbols(Loss):
    """The mean of sum_{r,m} p_r p_m N k_r / log2 M_m over windows: a smooth number of symbols.

    N tokens of k_r bits each for the codebook r, log2 M_m bits per symbol in the mode m. The side information about
    the route is the same for all windows and left out.
    """

    def forward(self, *, received: Received) -> Tensor:
        """Raises VqtoolError where nothing routes."""
        if "symbols.expected" not in received.figures:
            raise VqtoolError(
                "loss `expected-symbols`: the quantizer does not route", hint='use `quantizer.kind = "mixture-ema"`'
            )
        return received.figures["symbols.expected"].mean()
