"""Recurrent network over codes with long short-term memory; small, and its scheduled sampling is exact."""

from __future__ import annotations

from torch import nn

from vqtool.sequence.recurrent import RecurrentPrior


class Lstm(RecurrentPrior):
    """LSTM (Hochreiter and Schmidhuber 1997) over the flat sequence of codes."""

    kind = nn.LSTM
