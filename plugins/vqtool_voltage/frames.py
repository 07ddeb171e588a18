"""Where a period starts: the phase of its fundamental, and rotation by any angle that can be undone exactly.

The circuit does not care where a period starts. Rotating a current and its voltage by the phase of the current's
fundamental gives every pair the same start; the current is known when a voltage is generated, so the way back is too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqtool_voltage import reals


def fundamental(x: Tensor) -> Tensor:
    """The complex amplitude a of the first harmonic, [..., L] -> [...], in the unit of x.

    x[k] = Re(a exp(2 pi i k / L)) + the other harmonics: |a| is its peak value, angle(a) its phase at k = 0.
    Two sums of products and no matrix product, which autocast would round to half precision.
    """
    length = x.shape[-1]
    angle = 2 * math.pi / length * torch.arange(length, device=x.device, dtype=torch.float64)
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return torch.complex((x * cosine).sum(-1), -(x * sine).sum(-1)) * (2 / length)


def phase_of(x: Tensor) -> Tensor:
    """The phase of the fundamental in radians, [..., L] -> [...]."""
    return reals.phase_of(x) if torch.compiler.is_compiling() else fundamental(x).angle()


def rotate(x: Tensor, phase: Tensor) -> Tensor:
    """`x` [B, ..., L] later by `phase` [B] radians of its fundamental (2 pi: a whole period), by the shift theorem.

    Harmonic h is multiplied by exp(-i h phase), so that `rotate(x, phase_of(x))` has its fundamental at
    phase zero, and a phase of 2 pi m / L is `x.roll(m)`. The map is orthogonal: it keeps the norm, and
    `rotate(rotate(x, p), -p)` is x up to rounding. The Nyquist bin of an even length cannot be turned by a fraction of
    a sample and stay real; it is multiplied by the sign it has after the nearest whole number of samples. That
    keeps the three properties; what is lost is continuity in `phase` of that one bin.
    """
    if torch.compiler.is_compiling():
        return reals.rotate(x, phase)
    length = x.shape[-1]
    spectrum = torch.fft.rfft(x)
    phase = phase.reshape(phase.shape + (1,) * (x.dim() - phase.dim()))
    order = torch.arange(spectrum.shape[-1], device=x.device, dtype=x.dtype)
    turned = torch.polar(torch.ones_like(phase * order), -phase * order)
    if length % 2 == 0:
        whole = (phase * (length / (2 * math.pi))).round()
        turned = torch.cat([turned[..., :-1], (1 - 2 * whole.remainder(2)).to(turned.dtype)], -1)
    return torch.fft.irfft(spectrum * turned, n=length)
