"""Complex gains that a receiver knows, knows by pilots or does not know: products of pairs (I, Q), and error rates."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool_semcom.qam import Llr, Order, Qam


def times(a: Tensor, b: Tensor) -> Tensor:
    """The complex products [..., 2] of pairs (I, Q)."""
    (ai, aq), (bi, bq) = a.unbind(-1), b.unbind(-1)
    return torch.stack([ai * bi - aq * bq, ai * bq + aq * bi], -1)


def rotated(received: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """`received` [..., 2] turned back by the phase of `gain`, and |gain| [...]: y conj(h) / |h| = |h| x + n'."""
    size = gain.square().sum(-1).clamp_min(1e-20).sqrt()
    return times(received, gain * gain.new_tensor([1.0, -1.0])) / size[..., None], size


def gaussian(*shape: int, device: torch.device) -> Tensor:
    """CN(0, 1) as pairs (I, Q): E|h|^2 = 1."""
    return torch.randn(*shape, 2, device=device) / 2**0.5


def fading_error_rate(order: Order, snr: float, error: float = 0.0) -> float:
    """Bit error rate of M-QAM under Rayleigh fading h with nearest-point decisions on y / g, g an estimate of h.

    g = h + e, e ~ CN(0, v), v = error / snr; snr is Es/N0 as a ratio, E|h|^2 = 1. Given g, h = a g + u with
    a = 1 / (1 + v) and u ~ CN(0, a v), so an axis of y conj(g) / |g| has the mean a |g| s and the variance
    (a v |x|^2 + N0) / 2. A Gaussian tail Q(k |g|) has the mean (1 - k / sqrt(k^2 + 2 / E|g|^2)) / 2 over |g|.
    For 4-QAM that is (1 - r / sqrt(2 - r^2)) / 2 with r the correlation of y and g (Proakis, Digital Communications,
    appendix C, one branch); without an error it is that of `bit_error_rate`.
    """
    qam = Qam(order).double()
    levels, n0, v = qam.levels, 1 / snr, error / snr
    a = 1 / (1 + v)
    rank = levels.argsort()
    edges = (levels[rank][1:] + levels[rank][:-1]) / 2
    energy = levels[:, None].square() + levels.square()  # |x|^2 [I, Q]
    deviation = ((a * v * energy + n0) / 2).sqrt()
    k = (edges - a * levels[:, None, None]) / deviation[..., None]  # [I, Q, L - 1]
    above = (1 - k / (k.square() + 2 * a).sqrt()) / 2  # P(decided beyond this edge); E|g|^2 = 1 + v = 1 / a
    ends = torch.cat([torch.ones_like(above[..., :1]), above, torch.zeros_like(above[..., :1])], -1)
    decided = (ends[..., :-1] - ends[..., 1:]).mean(1)  # [I, L], the decided level by rank
    labels = torch.arange(len(levels))
    differ = labels[:, None] ^ rank  # bits that are wrong where `rank` is decided for a label
    wrong = sum((differ >> bit & 1).double() for bit in range(qam.axis_bits))
    return float((decided * wrong).sum(1).mean() / qam.axis_bits)


def blind_error_rate(order: Order, snr: float, how: Llr = "exact") -> float:
    """Bit error rate of M-QAM under Rayleigh fading that the receiver does not know at all, by quadrature.

    Given a point s, |y|^2 is exponential with the mean |s|^2 + N0: only energies tell points apart.
    """
    qam, n0 = Qam(order).double(), 1 / snr
    share = (torch.arange(4096, dtype=torch.double) + 0.5) / 4096
    energy = qam.points.square().sum(-1)[:, None] + n0
    received = (-torch.log1p(-share) * energy).sqrt()  # [M, 4096]
    pairs = torch.stack([received, torch.zeros_like(received)], -1)
    llr = qam.blind_llr(pairs, torch.tensor(n0, dtype=torch.double), how).unflatten(-1, (4096, -1))
    wrong = (llr > 0) != (qam.labels.bool()[:, None])
    return float(wrong.double().mean())
