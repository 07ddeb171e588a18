"""What a window is expected to cost on the channel, by the router's probabilities: the rate loss of a mixture."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import Loss, Received
from vqtool.errors import VqtoolError


class ExpectedSymbols(Loss):
    """The mean of sum_{r,m} p_r p_m N k_r / log2 M_m over windows: symbols, in the smooth form that a router learns.

    N tokens of k_r bits each for the codebook r, log2 M_m bits a symbol in the mode m. What the choice itself costs to
    tell is the same for all and left out.
    """

    def forward(self, *, received: Received) -> Tensor:
        """Raises VqtoolError where nothing routes."""
        if "symbols.expected" not in received.figures:
            raise VqtoolError("loss `expected-symbols`: nothing chooses a rate", hint='quantizer.kind = "mixture-ema"')
        return received.figures["symbols.expected"].mean()
