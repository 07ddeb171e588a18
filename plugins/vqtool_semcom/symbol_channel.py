"""Bits on QAM symbols: what the Gaussian and the fading channel have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, cast

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval, MinLen
from torch import Tensor, nn

from vqtool.api import Quantized
from vqtool.errors import VqtoolError
from vqtool_semcom.bit_channel import BitChannel, Gradient, Noise, Transmission, towards_hard
from vqtool_semcom.labels import Labelling
from vqtool_semcom.qam import Llr, Order, Qam, bit_error_rate, expected_llr, sharpened


class SymbolChannel(BitChannel):
    """y = h x + n over S = ceil(N k / m) M-QAM symbols per window; the pad bits are known zeros and dropped again.

    SNR means Es/N0 in dB with E|x|^2 = 1 over complex symbols, so the noise of each real axis has
    the variance N0 / 2, N0 = 10^(-SNR / 10). Eb/N0 = Es/N0 - 10 log10(m). Under fading it is the mean over E|h|^2 = 1.
    """

    fading = False

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        *,
        order: Annotated[
            Order | Annotated[tuple[Order, ...], MinLen(1)],
            Doc("M of the M-QAM constellation, log2 M bits per symbol; several: those that a router chooses among"),
        ] = 16,
        snr_db: Annotated[float, Doc("Es/N0 in evaluation, in dB, with E|x|^2 = 1 over complex symbols")] = 12.0,
        train_db: Annotated[tuple[float, float], Doc("range of Es/N0 in training, in dB; each row draws its own")] = (
            0.0,
            20.0,
        ),
        report_db: Annotated[tuple[float, ...], Doc("further Es/N0 to evaluate at, in dB")] = (3.0, 6.0, 12.0),
        llr: Annotated[
            Llr, Doc("LLRs of the receiver: log-sum-exp over a bit's symbols, or its largest term")
        ] = "exact",
        soft_symbol: Annotated[
            Annotated[float, Gt(0)] | None,
            Doc("temperature of distance-softmax symbols on the soft path; none: the exact expectation"),
        ] = None,
        labels: Annotated[
            Labelling, Doc("bits of the codes: their number, a Gray code along their first axis, or that, optimised")
        ] = "pseudo-gray",
        radius: Annotated[
            Annotated[int, Ge(0)] | None,
            Doc("largest Hamming distance of codes that the receiver considers; none: all"),
        ] = None,
        hard: Annotated[
            float, Interval(ge=0, le=1), Doc("share of hard bits and symbols in what training transmits")
        ] = 1.0,
        gradient: Annotated[
            Gradient, Doc("path of the gradient: past the channel, through its noise, or both")
        ] = "both",
    ) -> None:
        super().__init__(codebook_sizes, labels=labels, radius=radius, hard=hard, gradient=gradient)
        if train_db[0] > train_db[1]:
            raise VqtoolError(f"`train_db` goes from {train_db[0]} down to {train_db[1]}", hint="the lower one first")
        self.qams = nn.ModuleList(Qam(one) for one in ((order,) if isinstance(order, int) else order))
        self.symbol_bits = tuple(self.qam(mode).bits for mode in range(len(self.qams)))
        self.snr_db, self.train_db, self.report_db = snr_db, train_db, report_db
        self.llr, self.soft_symbol = llr, soft_symbol
        self._theory: dict[tuple[float, int], tuple[float, float]] = {}

    def qam(self, mode: int) -> Qam:
        """The constellation of a mode."""
        return cast(Qam, self.qams[mode])

    def levels(self) -> Mapping[str, float]:
        return {"": self.snr_db} | {f".{snr:g}db": snr for snr in self.report_db}

    def training_level(self, rows: int, device: torch.device) -> Tensor:
        low, high = self.train_db
        return low + (high - low) * torch.rand(rows, device=device)

    def draw(self, quantized: Quantized) -> Noise:
        bits, modes = self.bits_of(quantized), range(len(self.qams))
        rows, symbols = len(quantized.codes), max(self.symbols_of(bits, mode) for mode in modes)
        return (torch.randn(rows, symbols, 2, device=quantized.z.device),)

    def gain(self, noise: Noise) -> Tensor | None:
        """|h| [B, S] of what `draw` gave; None: 1."""
        return None

    def transmit(self, bits: Tensor, level: Tensor, noise: Noise, *, soft: bool, mode: int = 0) -> Transmission:
        return self._through(self._symbols(bits, soft, mode), bits.shape[1], level, noise, mode)

    def transmit_blend(
        self, soft: Transmission, hard: Transmission, bits: Tensor, level: Tensor, noise: Noise
    ) -> Transmission:
        symbols = towards_hard((self._symbols(bits, True, 0), hard.sent["symbols"]), self.hard)
        return self._through(symbols, bits.shape[1], level, noise, 0)

    def _symbols(self, bits: Tensor, soft: bool, mode: int) -> Tensor:
        """[B, n] -> [B, S, 2]; the pad bits are certain, but no bit stays certain under a distance softmax."""
        padded = self.symbols_of(bits.shape[1], mode) * self.symbol_bits[mode]
        bits = torch.nn.functional.pad(bits, (0, padded - bits.shape[1]))
        if soft and self.soft_symbol is not None:
            bits = sharpened(bits, self.soft_symbol)
        return self.qam(mode).symbols(bits)

    def _through(self, symbols: Tensor, bits: int, level: Tensor, noise: Noise, mode: int) -> Transmission:
        """The LLRs of `bits` bits. Known fading: y conj(h) / |h| = |h| x + n', with noise of the same variance."""
        noise = tuple(each[:, : symbols.shape[1]] for each in noise)
        n0 = 10 ** (-level / 10)
        gain = self.gain(noise)
        arrived = symbols if gain is None else gain[..., None] * symbols
        arrived = arrived + (n0 / 2).sqrt()[:, None, None] * noise[0]
        llr = self.qam(mode).llr(arrived, n0[:, None], gain, self.llr)[:, :bits]
        return Transmission(llr, {"symbols": symbols}, self._figures(llr, symbols, level, mode))

    @torch.no_grad()
    def _figures(self, llr: Tensor, symbols: Tensor, level: Tensor, mode: int) -> dict[str, Tensor]:
        """Per window; theory only in evaluation, where all rows of a batch have the same level.

        `llr` is the mean |LLR|, `symbols.entropy` that of the points sent by the whole batch, in bits.
        """
        used = torch.special.entr(self.qam(mode).points_used(symbols)).sum() / math.log(2)
        figures = {"tx_power": symbols.square().sum(-1).mean(-1), "llr": llr.abs().mean(-1),
                   "symbols.entropy": used.to(level).expand_as(level)}  # fmt: skip
        if not self.training and len(level):
            ber, size = self._expected(float(level[0]), mode)
            figures["ber.theory"] = torch.full_like(level, ber)
            figures["llr.ratio"] = llr.abs().mean(-1) / size
        return figures

    def _expected(self, snr_db: float, mode: int) -> tuple[float, float]:
        if (snr_db, mode) not in self._theory:
            snr, order = math.pow(10, snr_db / 10), self.qam(mode).order
            self._theory[snr_db, mode] = (
                bit_error_rate(order, snr, fading=self.fading),
                expected_llr(order, snr, fading=self.fading, how=self.llr),
            )
        return self._theory[snr_db, mode]
