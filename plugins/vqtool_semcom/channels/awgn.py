"""QAM symbols in white Gaussian noise."""

from __future__ import annotations

from vqtool_semcom.symbol_channel import SymbolChannel


class Awgn(SymbolChannel):
    """y = x + n; see `SymbolChannel` for what SNR means."""
