"""Square QAM with Gray labels and unit average energy: symbols from bits or bit probabilities, LLRs from symbols."""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
from torch import Tensor, nn

Order = Literal[4, 16, 64, 256]
Llr = Literal["exact", "max-log"]


class Qam(nn.Module):
    """M-QAM in the labelling of 3GPP TS 38.211 (section 5.1): of a symbol's bits the even ones set I, the odd ones Q.

    An axis of n = log2(M) / 2 bits has the amplitude (1 - 2 b0) (2^(n-1) - (1 - 2 b1) (2^(n-2) - ...)) / scale, which
    is a Gray label of its L = sqrt(M) levels; E|x|^2 = 1 over uniform bits. Axes are independent given the bits and
    given the received symbol, so nothing here costs more than L per bit.
    """

    levels: Tensor  # [L]  the amplitude of an axis by its label, first bit the most significant
    ones: Tensor  # [n, L / 2]  the labels whose bit is 1
    zeros: Tensor  # [n, L / 2]
    labels: Tensor  # [M, m]  the bits of each point
    points: Tensor  # [M, 2]

    def __init__(self, order: Order) -> None:
        super().__init__()
        self.order = order
        self.bits = int(math.log2(order))  # per symbol, m
        self.axis_bits = self.bits // 2  # n
        self.scale = math.sqrt(2 * (order - 1) / 3)
        labels = torch.arange(2**self.axis_bits)
        table = labels[:, None] >> torch.arange(self.axis_bits - 1, -1, -1) & 1  # [L, n]
        self.register_buffer("levels", self._amplitude(table.float()), persistent=False)
        self.register_buffer("ones", torch.stack([labels[bit == 1] for bit in table.unbind(1)]), persistent=False)
        self.register_buffer("zeros", torch.stack([labels[bit == 0] for bit in table.unbind(1)]), persistent=False)
        whole = torch.arange(order)[:, None] >> torch.arange(self.bits - 1, -1, -1) & 1
        self.register_buffer("labels", whole, persistent=False)
        self.register_buffer("points", self.symbols(whole.float())[:, 0], persistent=False)

    def symbols(self, bits: Tensor) -> Tensor:
        """Bits, or probabilities of ones, [..., S * m] -> symbols [..., S, 2] as (I, Q).

        For probabilities this is the exact expectation sum_c w(c) s_c, w(c) = prod_b p_b^c_b (1 - p_b)^(1 - c_b): an
        amplitude is linear in each of its independent bits. At certain bits it is the constellation's point itself.
        """
        return self._amplitude(self._by_axis(bits))

    def weights(self, bits: Tensor) -> Tensor:
        """Probabilities of ones [..., S * m] -> those of the points [..., S, M], for independent bits."""
        each = bits.unflatten(-1, (-1, 1, self.bits))
        return torch.where(self.labels.bool(), each, 1 - each).prod(-1)

    def llr(self, received: Tensor, noise: Tensor, gain: Tensor | None = None, how: Llr = "exact") -> Tensor:
        """log P(bit = 1) / P(bit = 0) [..., S * m] of `received` [..., S, 2] = `gain` x + n, for equally likely bits.

        Args:
            received: rotated by the channel's phase, so that `gain` [..., S] is real (None: 1).
            noise: N0, the noise's energy over both axes, broadcast over [..., S].
            how: the log of sums over a bit's symbols, or of their largest terms.
        """
        points = self.levels if gain is None else gain[..., None, None] * self.levels
        metric = -(received[..., None] - points).square() / noise[..., None, None]  # [..., S, 2, L]
        gather = torch.logsumexp if how == "exact" else torch.amax
        llr = gather(metric[..., self.ones], -1) - gather(metric[..., self.zeros], -1)  # [..., S, 2, n]
        return llr.transpose(-1, -2).flatten(-3)

    def blind_llr(self, received: Tensor, noise: Tensor, how: Llr = "exact") -> Tensor:
        """The same for `received` = h x + n where h ~ CN(0, 1) is known by nobody: y ~ CN(0, |x|^2 + N0).

        Only energies differ, so bits that turn a point alone have an LLR of 0.
        """
        spread = self.points.square().sum(-1) + noise[..., None]  # [..., M]
        metric = -received.square().sum(-1, keepdim=True) / spread - spread.log()
        gather = torch.logsumexp if how == "exact" else torch.amax
        each = [(metric[..., bit == 1], metric[..., bit == 0]) for bit in self.labels.unbind(1)]
        return torch.stack([gather(one, -1) - gather(zero, -1) for one, zero in each], -1).flatten(-2)

    def points_used(self, symbols: Tensor) -> Tensor:
        """The share of `symbols` [..., 2] that are nearest to each of the M points [M]."""
        axis = (symbols[..., None] - self.levels).abs().argmin(-1)
        point = axis[..., 0] * len(self.levels) + axis[..., 1]
        return torch.bincount(point.flatten(), minlength=self.order).double() / max(1, point.numel())

    def _by_axis(self, bits: Tensor) -> Tensor:
        """[..., S * m] -> [..., S, 2, n]."""
        return bits.unflatten(-1, (-1, self.axis_bits, 2)).transpose(-1, -2)

    def _amplitude(self, bits: Tensor) -> Tensor:
        """[..., n] -> [...]."""
        value = bits.new_zeros(bits.shape[:-1])
        for bit in reversed(range(self.axis_bits)):
            value = (1 - 2 * bits[..., bit]) * (2 ** (self.axis_bits - 1 - bit) - value)
        return value / self.scale


def sharpened(probability: Tensor, temperature: float) -> Tensor:
    """Bit probabilities as the distance softmax w(c) = softmax(-|p - c|^2 / temperature) makes them.

    The softmax over all symbols of a bit vector c factors into sigmoid((2 p_b - 1) / temperature) for each bit: certain
    bits become uncertain at every temperature above 0, and the symbols lose power: 4.8 dB at 0.7 for 16-QAM.
    """
    return torch.sigmoid((2 * probability - 1) / max(temperature, 1e-6))


def bit_error_rate(order: Order, snr: float, *, fading: bool = False) -> float:
    """Bit error rate of Gray M-QAM with nearest-point decisions at Es/N0 = `snr` (a ratio, not dB).

    Cho and Yoon 2002 (IEEE Trans. Commun. 50(7), equations 14 and 16); under Rayleigh fading known at the receiver,
    erfc(sqrt(a snr)) is replaced by its mean over an exponential snr, 1 - sqrt(a snr / (1 + a snr)).
    """
    side = math.isqrt(order)
    bits = int(math.log2(side))
    total = 0.0
    for k in range(1, bits + 1):
        for i in range(side - (side >> k)):
            turn = (i << (k - 1)) // side
            weight = (-1) ** turn * (2 ** (k - 1) - math.floor(i * 2 ** (k - 1) / side + 0.5))
            a = (2 * i + 1) ** 2 * 3 / (2 * (order - 1)) * snr
            total += weight * (1 - math.sqrt(a / (1 + a)) if fading else math.erfc(math.sqrt(a)))
    return total / (side * bits)


@functools.cache
def expected_llr(order: Order, snr: float, *, fading: bool = False, how: Llr = "exact") -> float:
    """Mean |LLR| that uniform bits have at Es/N0 = `snr` (a ratio), by quadrature; under Rayleigh fading if asked."""
    qam = Qam(order).double()
    at = torch.linspace(-6, 6, 121, dtype=torch.double)  # standard deviations of the noise
    weight = torch.exp(-at.square() / 2)
    share = (torch.arange(64, dtype=torch.double) + 0.5) / 64
    gains = (-torch.log1p(-share)).sqrt() if fading else torch.ones(1, dtype=torch.double)
    noise = torch.tensor(1 / snr, dtype=torch.double)
    means = []
    for gain in gains:
        received = gain * qam.levels[:, None] + at * (noise / 2).sqrt()  # [L, 121]
        both = torch.stack([received, received], -1)  # an axis stands for both
        size = qam.llr(both, noise, gain.expand(both.shape[:-1]), how).abs().view(*received.shape, -1).mean(-1)
        means.append((size * weight).sum(1).div(weight.sum()).mean())
    return float(torch.stack(means).mean())
