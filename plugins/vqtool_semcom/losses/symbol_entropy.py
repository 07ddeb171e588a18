"""How undecided the soft symbols are, or how unevenly they use the constellation, as a loss."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_doc import Doc
from torch import Tensor

from vqtool.api import DataSpec, Loss, Received
from vqtool.errors import VqtoolError


class SymbolEntropy(Loss):
    """In bits: the mean entropy of a soft symbol ("choice"), or log2 M minus the entropy of the M points' use ("use").

    A symbol's distribution over the M points is that of its bits' probabilities, under `channel.soft_symbol`'s
    temperature; the use is its mean over the batch. "choice" is 0 where every symbol is a point, "use" where the batch
    uses all points alike. A weight that rises is a schedule of `losses.symbol-entropy`.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        of: Annotated[
            Literal["choice", "use"], Doc("entropy of each symbol, or distance of the points' use from even use")
        ] = "choice",
    ) -> None:
        super().__init__(spec)
        self.of = of

    def forward(self, *, received: Received) -> Tensor:
        """Raises VqtoolError where there are no soft symbols."""
        if "symbols.choice" not in received.figures:
            raise VqtoolError(
                "loss `symbol-entropy`: the link has no soft symbols",
                hint="a channel of symbols, and a quantizer that gives probabilities: soft-ema and soft do",
            )
        return received.figures["symbols.choice" if self.of == "choice" else "symbols.unused"].mean()
