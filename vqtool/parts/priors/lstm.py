"""Recurrent network over codes with long short-term memory; small, and its scheduled sampling is exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from vqtool.sequence.recurrent import RecurrentPrior


class Lstm(RecurrentPrior):
    """LSTM (Hochreiter and Schmidhuber 1997) over the flat sequence of codes."""

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        length: int,
        condition_dim: int = 0,
        vectors: Sequence[Tensor] | None = None,
        *,
        layers: Annotated[int, Ge(1), Doc("recurrent layers")] = 1,
        width: Annotated[int, Gt(1), Doc("features of a step, and of the network's memory")] = 160,
        dropout: Annotated[float, Interval(ge=0.0, lt=1.0), Doc("share of features dropped while training")] = 0.1,
    ) -> None:
        between = dropout if layers > 1 else 0.0
        network = nn.LSTM(width, width, layers, batch_first=True, dropout=between)
        super().__init__(codebook_sizes, length, condition_dim, vectors, network, dropout)
