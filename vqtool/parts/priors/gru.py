"""Recurrent network over codes with gated recurrent units; small, and its scheduled sampling is exact."""

from __future__ import annotations

from torch import nn

from vqtool.sequence.recurrent import RecurrentPrior


class Gru(RecurrentPrior):
    """GRU (Cho et al. 2014, arXiv 1406.1078) over the flat sequence of codes."""

    kind = nn.GRU
