"""Short-time spectra at several scales, and the distance of two of them: what losses and metrics share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vqtool.layers.lengths import real_rows

SCALES = (2048, 1024, 512, 256, 128)  # window lengths; each hops by a quarter
FLOOR = 1e-5  # of full scale: what is softer counts as silence


def magnitudes(x: Tensor, window: int) -> Tensor:
    """|STFT| of `x` [..., L] under a Hann window that hops by a quarter: [..., bins, frames], a sine of amplitude a
    peaking at about a / 2."""
    taper = torch.hann_window(window, device=x.device, dtype=x.dtype)
    flat = x.reshape(-1, x.shape[-1])
    spectrum = torch.stft(flat, window, window // 4, window=taper, pad_mode="constant", return_complex=True)
    power = torch.view_as_real(spectrum).square().sum(-1) / taper.sum() ** 2
    return (power + FLOOR**2).sqrt().view(*x.shape[:-1], *power.shape[1:])


def mel_filters(bins: int, rate: float, bands: int) -> Tensor:
    """Triangles of equal width in mel = 2595 log10(1 + f / 700): [bands, bins], each with the sum 1 over the bins.

    Where the bands are narrower than a bin, a filter takes the nearest bin alone.
    """
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    f = torch.linspace(0, rate / 2, bins, dtype=torch.float64)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = torch.minimum((f - low) / (middle - low), (high - f) / (high - middle)).clamp_min(0)
    nearest = torch.zeros_like(filters).scatter_(1, (f - middle).abs().argmin(1, keepdim=True), 1)
    filters = torch.where(filters.sum(1, keepdim=True) > 0, filters, nearest)
    return (filters / filters.sum(1, keepdim=True)).float()


def magnitudes_of_both(x: Tensor, y: Tensor, window: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """`magnitudes` of two signals; of rows that a `mask` [B, L] ends before their padding, [bins, frames of all]."""
    if mask is None:
        return magnitudes(x, window), magnitudes(y, window)
    each = [[magnitudes(s, window).movedim(-2, 0).flatten(1) for s in pair] for pair in real_rows(mask, x, y)]
    a, b = (torch.cat(column, 1) for column in zip(*each, strict=True))
    return a, b


def stft_distance(x: Tensor, y: Tensor, scales: Sequence[int] = SCALES, mask: Tensor | None = None) -> Tensor:
    """Mean over scales of spectral convergence plus mean |log magnitude difference| (Yamamoto et al. 2020).

    `x` is the reference, `y` the estimate, [..., L]; the convergence is |X - Y| / |X| in the Frobenius norm.
    """
    total = x.new_zeros(())
    for window in scales:
        a, b = magnitudes_of_both(x, y, window, mask)
        convergence = (b - a).norm() / a.norm()
        total = total + convergence + (b.log() - a.log()).abs().mean()
    return total / len(scales)


def mel_distance(
    x: Tensor, y: Tensor, rate: float, scales: Sequence[int] = (2048, 512), bands: int = 64, mask: Tensor | None = None
) -> Tensor:
    """Mean over scales of the mean absolute difference of log10 mel magnitudes, [..., L] (in bels of amplitude)."""
    total = x.new_zeros(())
    for window in scales:
        filters = mel_filters(window // 2 + 1, rate, bands).to(x)
        a, b = (filters @ each for each in magnitudes_of_both(x, y, window, mask))
        total = total + (b.log10() - a.log10()).abs().mean()
    return total / len(scales)
