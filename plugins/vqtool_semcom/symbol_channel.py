"""Bits on QAM symbols: what the Gaussian and the fading channel have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, cast

import torch
from annotated_doc import Doc
from annotated_types import Gt, Interval, MinLen
from torch import Tensor, nn

from vqtool.api import Quantized, Received, with_options_of
from vqtool.errors import VqtoolError
from vqtool_semcom.bit_channel import BitChannel, Noise, Transmission, real
from vqtool_semcom.fading import rotated, times
from vqtool_semcom.paths import towards_hard
from vqtool_semcom.qam import Llr, Order, Qam, bit_error_rate, expected_llr, sharpened

Csi = Literal["known", "pilots", "none"]
SPAN = -100.0, 200.0  # dB, beyond any link and within float32
Decibels = Annotated[float, Interval(ge=SPAN[0], le=SPAN[1])]


class SymbolChannel(BitChannel):
    """y = h x + n over S = ceil(N k / m) M-QAM symbols per window; the pad bits are known zeros and dropped again.

    SNR means Es/N0 in dB with E|x|^2 = 1 over complex symbols, so the noise of each real axis has
    the variance N0 / 2, N0 = 10^(-SNR / 10). Eb/N0 = Es/N0 - 10 log10(m). Under fading it is the mean over E|h|^2 = 1.
    """

    knobs = frozenset({"hard", "soft_symbol"})
    measure, span = "Es/N0 in dB", SPAN
    csi: Csi = "known"  # what the receiver knows of h
    estimate_error = 0.0  # variance of the estimate of h, as a multiple of N0
    arrivals: tuple[tuple[str, ...], ...] = (("symbols", "snr_db"), ("llr",))

    @with_options_of(BitChannel)
    def __init__(
        self,
        codebook_sizes: Sequence[int],
        *,
        order: Annotated[
            Order | Annotated[tuple[Order, ...], MinLen(1)],
            Doc("M of the M-QAM constellation, log2 M bits per symbol; several: those that a router chooses among"),
        ] = 16,
        snr_db: Annotated[Decibels, Doc("Es/N0 in evaluation, in dB, with E|x|^2 = 1 over complex symbols")] = 12.0,
        train_db: Annotated[
            tuple[Decibels, Decibels], Doc("range of Es/N0 in training, in dB; each row draws its own")
        ] = (
            0.0,
            20.0,
        ),
        report_db: Annotated[tuple[Decibels, ...], Doc("further Es/N0 to evaluate at, in dB")] = (3.0, 6.0, 12.0),
        llr: Annotated[
            Llr, Doc("LLRs of the receiver: log-sum-exp over a bit's symbols, or its largest term")
        ] = "exact",
        soft_symbol: Annotated[
            Annotated[float, Gt(0)] | None,
            Doc("temperature of distance-softmax symbols on the soft path, a knob; none: the exact expectation"),
        ] = None,
        assumed_db: Annotated[
            Decibels | None, Doc("Es/N0 that the receiver reckons with, in dB; none: it knows the true one")
        ] = None,
        protect: Annotated[
            bool, Doc("first levels on the bits of a symbol that arrive best: the first of each axis's Gray label")
        ] = False,
        **options: Any,
    ) -> None:
        super().__init__(codebook_sizes, **options)
        if protect and self.fec.corrects:
            raise VqtoolError(
                "`protect` has no meaning with `fec`: each bit is spread over many coded bits, which are interleaved",
                hint='`protect = false`, or `fec = "none"`',
            )
        self.protect = protect
        if train_db[0] > train_db[1]:
            raise VqtoolError(f"`train_db` goes from {train_db[0]} down to {train_db[1]}", hint="the lower one first")
        self.qams = nn.ModuleList(Qam(one) for one in ((order,) if isinstance(order, int) else order))
        self.symbol_bits = tuple(self.qam(mode).bits for mode in range(len(self.qams)))
        self.snr_db, self.train_db, self.report_db = snr_db, train_db, report_db
        self.llr, self.soft_symbol, self.assumed_db = llr, soft_symbol, assumed_db
        self._theory: dict[tuple[float, int], tuple[float, float | None]] = {}

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
        rows, symbols = len(quantized.codes), max(self.data_symbols(bits, mode) for mode in modes)
        device = quantized.z.device
        return (torch.randn(rows, symbols, 2, device=device), *self.draw_gains(rows, symbols, device))

    def draw_gains(self, rows: int, symbols: int, device: torch.device) -> tuple[Tensor, ...]:
        """Of a fading channel, h [B, S, 2] of every symbol; then, where it is estimated, (estimate - h) / sqrt(N0)."""
        return ()

    def disturb(self, bits: Tensor, level: Tensor, noise: Noise, *, soft: bool, mode: int = 0) -> Transmission:
        return self._through(self._symbols(bits, soft, mode), bits.shape[1], level, noise, mode)

    def transmit_blend(
        self, soft: Transmission, hard: Transmission, bits: Tensor, level: Tensor, noise: Noise
    ) -> Transmission:
        coded = self.fec.encode(bits)
        symbols = towards_hard((self._symbols(coded, True, 0), hard.sent["symbols"]), self.hard)
        return self.decoded(self._through(symbols, coded.shape[1], level, noise, 0), coded, bits.shape[1])

    def carried(self, bits: Tensor) -> dict[str, Tensor]:
        """`symbols` [B, S, 2] as (I, Q)."""
        return {"symbols": self._symbols(bits, False, 0)}

    def _symbols(self, bits: Tensor, soft: bool, mode: int) -> Tensor:
        """[B, n] -> [B, S, 2]."""
        return self.qam(mode).symbols(self._symbol_bits(bits, soft, mode))

    def _symbol_bits(self, bits: Tensor, soft: bool, mode: int) -> Tensor:
        """[B, n] -> [B, S m]; the pad bits are certain, but no bit stays certain under a distance softmax."""
        bits = torch.nn.functional.pad(bits, (0, -bits.shape[1] % self.symbol_bits[mode]))
        if self.protect:
            bits = bits[:, self._slots(bits.shape[1], mode).argsort().to(bits.device)]
        return sharpened(bits, self.soft_symbol) if soft and self.soft_symbol is not None else bits

    def _slots(self, padded: int, mode: int) -> Tensor:
        """Places [S m] of bits, those that arrive best first: the first bit of both axes of every symbol, and so on."""
        return (torch.arange(padded) % self.symbol_bits[mode] // 2).argsort(stable=True)

    def soft_figures(self, bits: Tensor) -> dict[str, Tensor]:
        """Of the distribution over points that the bits' probabilities [B, n] give a symbol; in bits, differentiable.

        `symbols.choice` [B] is the mean entropy of a symbol, 0 where all are decided; `symbols.unused` is log2 M minus
        the entropy of the batch's mean distribution, 0 where all points are used alike.
        """
        weights = self.qam(0).weights(self._symbol_bits(self.fec.encode(bits), True, 0))  # [B, S, M]
        choice = torch.special.entr(weights).sum(-1).mean(-1) / math.log(2)
        use = torch.special.entr(weights.mean((0, 1))).sum() / math.log(2)
        return {"symbols.choice": choice, "symbols.unused": (self.symbol_bits[0] - use).expand_as(choice)}

    def _through(self, symbols: Tensor, bits: int, level: Tensor, noise: Noise, mode: int) -> Transmission:
        """y = h x + n, and the LLRs of `bits` bits from y and what is known of h."""
        noise = tuple(each[:, : symbols.shape[1]] for each in noise)
        n0 = 10 ** (-level / 10)
        arrived = times(noise[1], symbols) if len(noise) > 1 else symbols
        arrived = arrived + (n0 / 2).sqrt()[:, None, None] * noise[0]
        gain = noise[1] if len(noise) > 1 and self.csi != "none" else None
        if len(noise) > 2 and gain is not None:
            gain = gain + n0.sqrt()[:, None, None] * noise[2]
        llr = self._llr(arrived, gain, n0, mode)[:, :bits]
        seen = {"arrived": arrived} if gain is None else {"arrived": arrived, "gain": gain}
        return Transmission(llr, {"symbols": symbols}, self._figures(llr, symbols, level, mode), seen)

    def _llr(self, arrived: Tensor, gain: Tensor | None, n0: Tensor, mode: int) -> Tensor:
        """LLRs [B, S m] of `arrived` [B, S, 2]; `gain` [B, S, 2] is what the receiver takes h to be, None for 1.

        An estimate's own error acts on a symbol of unit energy like noise of the variance `estimate_error` N0.
        """
        n0 = n0[:, None]
        if self.assumed_db is not None:
            n0 = torch.full_like(n0, 10 ** (-self.assumed_db / 10))
        if self.csi == "none":
            llr = self.qam(mode).blind_llr(arrived, n0, self.llr)
        else:
            size = None
            if gain is not None:
                arrived, size = rotated(arrived, gain)
            llr = self.qam(mode).llr(arrived, n0 * (1 + self.estimate_error), size, self.llr)
        return llr[:, self._slots(llr.shape[1], mode).to(llr.device)] if self.protect else llr

    def forms(self, received: Received, level: Tensor) -> list[dict[str, Tensor]]:
        names = {"symbols": "arrived", "gain": "gain"}
        first = {name: received.trace[names[name]] for name in self.arrivals[0] if name in names}
        return [{**first, "snr_db": level}, *super().forms(received, level)]

    def llr_of(self, arrived: Mapping[str, Tensor], bits: int) -> Tensor:
        """From `symbols` and `gain`, [B, S] complex or [B, S, 2] as (I, Q), and `snr_db`, [B] or one number."""
        pairs = {name: as_pairs(arrived[name]) for name in ("symbols", "gain") if name in arrived}
        wanted = [-(-bits // self.symbol_bits[0]), 2]
        for name, value in pairs.items():
            if list(value.shape[1:]) != wanted or value.shape[0] != pairs["symbols"].shape[0]:
                raise VqtoolError(f"`{name}` should have the shape [B, {wanted[0]}] complex, or [B, {wanted[0]}, 2], "
                                  f"not {list(arrived[name].shape)}")  # fmt: skip
        rows = pairs["symbols"].shape[0]
        level = real(arrived, "snr_db").clamp(*self.span)
        if level.dim() and (level.dim() > 1 or level.shape[0] != rows):
            raise VqtoolError(f"`snr_db` should be one number or [{rows}], not {list(level.shape)}")
        n0 = (10 ** (-level / 10)).expand(rows)
        return self._llr(pairs["symbols"], pairs.get("gain"), n0, 0)[:, :bits]

    @torch.no_grad()
    def _figures(self, llr: Tensor, symbols: Tensor, level: Tensor, mode: int) -> dict[str, Tensor]:
        """Per window; theory only in evaluation, where all rows of a batch have the same level.

        `llr` is the mean |LLR|, `symbols.entropy` that of the points sent by the whole batch, in bits.
        """
        used = torch.special.entr(self.qam(mode).points_used(symbols)).sum() / math.log(2)
        figures = {"tx_power": symbols.square().sum(-1).mean(-1), "llr": llr.abs().mean(-1),
                   "symbols.entropy": used.to(level).expand_as(level)}  # fmt: skip
        if not self.training and len(level):
            key = (float(level[0]), mode)
            if key not in self._theory:
                self._theory[key] = self.theory(self.qam(mode).order, math.pow(10, key[0] / 10))
            ber, size = self._theory[key]
            figures["ber.theory"] = torch.full_like(level, ber)
            if size is not None:
                figures["llr.ratio"] = llr.abs().mean(-1) / size
        return figures

    def theory(self, order: Order, snr: float) -> tuple[float, float | None]:
        """The bit error rate at Es/N0 = `snr` (a ratio), and the mean |LLR| where it is known."""
        return bit_error_rate(order, snr), expected_llr(order, snr, how=self.llr)


def as_pairs(value: Tensor) -> Tensor:
    """Complex numbers as pairs (I, Q), which may be given as such."""
    return (torch.view_as_real(value) if value.is_complex() else value).float()
