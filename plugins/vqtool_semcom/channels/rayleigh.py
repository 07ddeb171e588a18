"""QAM symbols under Rayleigh fading, fast or by blocks, that the receiver knows, estimates or does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_doc import Doc
from annotated_types import Ge
from torch import Tensor

from vqtool_semcom.fading import blind_error_rate, fading_error_rate, gaussian
from vqtool_semcom.options import with_options_of
from vqtool_semcom.qam import Order, expected_llr
from vqtool_semcom.symbol_channel import Csi, SymbolChannel


class Rayleigh(SymbolChannel):
    """y = h x + n with h ~ CN(0, 1), independent for every symbol (ideal interleaving) or every block of them.

    See `SymbolChannel` for what SNR means: it is the mean over h. With `csi = "known"` the receiver compares
    |y - h s|^2; it does not divide by h, which would scale the noise as well. With "pilots" each block begins with some
    pilots of unit energy, counted in `symbols`, and the receiver takes h to be their mean (least squares). With "none"
    it knows the distribution of h alone: energies, not phases, tell symbols apart.
    """

    @with_options_of(SymbolChannel)
    def __init__(
        self,
        codebook_sizes: Sequence[int],
        *,
        block: Annotated[int, Ge(0), Doc("symbols in a row that share one h; 0: all of a window")] = 1,
        csi: Annotated[Csi, Doc("what the receiver knows of h: all of it, what pilots say, or nothing")] = "known",
        pilots: Annotated[int, Ge(1), Doc('pilots of a block, with `csi = "pilots"`')] = 1,
        **options: Any,
    ) -> None:
        super().__init__(codebook_sizes, **options)
        self.block, self.csi, self.pilots = block, csi, pilots
        self.estimate_error = 1 / pilots if csi == "pilots" else 0.0
        if csi != "none":
            self.arrivals = (("symbols", "gain", "snr_db"), ("llr",))

    def draw_gains(self, rows: int, symbols: int, device: torch.device) -> tuple[Tensor, ...]:
        gains = [self._by_block(rows, symbols, device)]
        if self.csi == "pilots":
            gains.append(self.estimate_error**0.5 * self._by_block(rows, symbols, device))
        return tuple(gains)

    def _by_block(self, rows: int, symbols: int, device: torch.device) -> Tensor:
        """CN(0, 1) for each block, [B, S, 2]."""
        block = self.block or symbols
        return gaussian(rows, -(-symbols // block), device=device).repeat_interleave(block, 1)[:, :symbols]

    def symbols_of(self, bits: int, mode: int = 0) -> int:
        data = self.data_symbols(bits, mode)
        return data + (self.pilots * -(-data // (self.block or data)) if self.csi == "pilots" else 0)

    def theory(self, order: Order, snr: float) -> tuple[float, float | None]:
        if self.csi == "none":
            return blind_error_rate(order, snr, self.llr), None
        known = self.csi == "known"
        size = expected_llr(order, snr, fading=True, how=self.llr) if known else None
        return fading_error_rate(order, snr, self.estimate_error), size
