"""QAM symbols in white Gaussian noise."""

from __future__ import annotations

import math

from vqtool_semcom.symbol_channel import SymbolChannel


class Awgn(SymbolChannel):
    """y = x + n; see `SymbolChannel` for what SNR means."""

    def capacity(self, level: float) -> float:
        """The most bits that any code gets through one symbol: log2(1 + Es/N0); square constellations carry less."""
        return math.log1p(10 ** (level / 10)) / math.log(2)
