"""QAM symbols on the carriers of OFDM through a multi-tap fading channel, estimated by pilots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt
from torch import Tensor

from vqtool.api import with_options_of
from vqtool.errors import VqtoolError
from vqtool_semcom.fading import fading_error_rate, gaussian
from vqtool_semcom.qam import Order, expected_llr
from vqtool_semcom.symbol_channel import SymbolChannel


class Ofdm(SymbolChannel):
    """y_k = H_k x_k + n_k on N carriers; H is the discrete Fourier transform of taps that fade once for each window.

    Taps are independent, CN(0, p_l) with p_l decaying exponentially and sum p_l = 1, so every carrier has Rayleigh
    fading with E|H_k|^2 = 1. They are no more than the cyclic prefix covers: no symbol reaches into the next, and
    carriers stay orthogonal. Every (N / pilots)-th carrier is a pilot of unit energy; a window's symbols fill the
    others, OFDM symbol after OFDM symbol. The receiver divides by the pilots, transforms to as many taps as the prefix
    has samples + 1 (or as there are pilots), and back to all carriers: the least-squares estimate of these taps, with
    an error of N0 (taps) / (pilots) on each carrier.

    SNR is Es/N0 on a carrier. The pilots count in `symbols`; the prefix takes (N + prefix) / N of the energy and of the
    time, which is not counted, as the SNR of Sionna's OFDM channel is.
    """

    arrivals = (("symbols", "gain", "snr_db"), ("llr",))

    @with_options_of(SymbolChannel)
    def __init__(
        self,
        codebook_sizes: Sequence[int],
        *,
        carriers: Annotated[int, Gt(1), Doc("carriers of an OFDM symbol, N")] = 64,
        prefix: Annotated[int, Ge(0), Doc("samples of the cyclic prefix")] = 16,
        taps: Annotated[int, Gt(0), Doc("taps of the channel, a sample apart")] = 4,
        decay: Annotated[float, Gt(0), Doc("taps after which their mean power has fallen to 1/e")] = 2.0,
        pilots: Annotated[int, Gt(0), Doc("pilot carriers, evenly spaced; a divisor of the carriers")] = 16,
        csi: Annotated[Literal["known", "pilots"], Doc("what the receiver knows of H: all, or what pilots say")] = (
            "pilots"
        ),
        **options: Any,
    ) -> None:
        super().__init__(codebook_sizes, **options)
        if taps > prefix + 1:
            raise VqtoolError(f"{taps} taps reach beyond a prefix of {prefix} samples", hint=f"`prefix` = {taps - 1}")
        if carriers % pilots or pilots == carriers or taps > pilots:
            raise VqtoolError(
                f"{pilots} pilots among {carriers} carriers cannot show {taps} taps",
                hint="a divisor of the carriers, at least the taps and fewer than all",
            )
        self.carriers, self.prefix, self.pilots, self.csi = carriers, prefix, pilots, csi
        powers = torch.exp(-torch.arange(taps) / decay)
        self.register_buffer("powers", powers / powers.sum(), persistent=False)
        self.fitted = min(pilots, prefix + 1)  # taps of the estimate
        self.estimate_error = self.fitted / pilots if csi == "pilots" else 0.0
        places = torch.arange(carriers)
        self.register_buffer("data", places[places % (carriers // pilots) != 0], persistent=False)

    powers: Tensor  # [taps]
    data: Tensor  # [carriers - pilots]  the carriers of data

    def draw_gains(self, rows: int, symbols: int, device: torch.device) -> tuple[Tensor, ...]:
        taps = self.powers.to(device).sqrt()[:, None] * gaussian(rows, len(self.powers), device=device)
        count = self._ofdm_symbols(symbols)
        gain = self.on_carriers(taps)[:, self.data].repeat(1, count, 1)[:, :symbols]
        if self.csi == "known":
            return (gain,)
        noise = torch.view_as_complex(gaussian(rows * count, self.pilots, device=device).contiguous())
        error = torch.view_as_real(torch.fft.ifft(noise))[:, : self.fitted]
        return gain, self.on_carriers(error)[:, self.data].reshape(rows, -1, 2)[:, :symbols]

    def on_carriers(self, taps: Tensor) -> Tensor:
        """H [B, N, 2] on every carrier of taps [B, L, 2]."""
        return torch.view_as_real(torch.fft.fft(torch.view_as_complex(taps.contiguous()), self.carriers))

    def _ofdm_symbols(self, symbols: int) -> int:
        return math.ceil(symbols / len(self.data))

    def symbols_of(self, bits: int, mode: int = 0) -> int:
        data = self.data_symbols(bits, mode)
        return data + self.pilots * self._ofdm_symbols(data)

    def theory(self, order: Order, snr: float) -> tuple[float, float | None]:
        size = expected_llr(order, snr, fading=True, how=self.llr) if self.csi == "known" else None
        return fading_error_rate(order, snr, self.estimate_error), size
