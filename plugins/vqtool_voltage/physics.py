"""Faraday's law on one sampled period: circular derivatives, the inductance that fits, residuals, band projection.

Everything works on real tensors whose last axis is one period of a periodic signal and whose first axis counts the
waveforms. The law is v = -M x dI/dt, with M > 0 for a passive winding in the sign convention of the data; x is a
position or coupling factor, 1 where there is none. M and a constant x cannot be separated: only their product acts.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Scheme = Literal["central", "spectral", "forward"]


def per_wave(value: Tensor, like: Tensor) -> Tensor:
    """`value` [B] (or anything that already broadcasts) with trailing axes added to meet `like` [B, ..., L]."""
    return value.reshape(value.shape + (1,) * (like.dim() - value.dim())) if value.dim() < like.dim() else value


def derivative(x: Tensor, dt: Tensor, scheme: Scheme = "central") -> Tensor:
    """The circular time derivative of `x` [B, ..., L], with `dt` [B] seconds per sample; unit of x per second.

    central: (x[k+1] - x[k-1]) / 2dt, which damps harmonic h by sin(2 pi h/L) / (2 pi h/L).
    spectral: exact for a band-limited signal; the Nyquist bin of an even length, whose derivative is not
    determined by its samples, is set to zero.
    forward: (x[k+1] - x[k]) / dt, the mean derivative over [k, k+1): the exact law for a voltage that was averaged
    over the interval that *begins* at the current's sample.
    """
    step = per_wave(dt, x)
    if scheme == "central":
        return (x.roll(-1, -1) - x.roll(1, -1)) / (2 * step)
    if scheme == "forward":
        return (x.roll(-1, -1) - x) / step
    length = x.shape[-1]
    omega = 2 * math.pi / length * torch.arange(length // 2 + 1, device=x.device, dtype=x.dtype)
    if length % 2 == 0:
        omega[-1] = 0.0
    return torch.fft.irfft(1j * omega * torch.fft.rfft(x), n=length) / step


def band(x: Tensor, harmonics: int | None) -> Tensor:
    """`x` [..., L] projected on its harmonics 1 to `harmonics` (no mean); None gives `x` as it is.

    An orthogonal projection: idempotent, and never longer than `x`. Raises ValueError above L/2.
    """
    if harmonics is None:
        return x
    length = x.shape[-1]
    if not 1 <= harmonics <= length // 2:
        raise ValueError(f"a period of {length} samples has the harmonics 1 to {length // 2}, not {harmonics}")
    spectrum = torch.fft.rfft(x)
    order = torch.arange(spectrum.shape[-1], device=x.device)
    return torch.fft.irfft(spectrum * ((order >= 1) & (order <= harmonics)), n=length)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each waveform, [B, ..., L] -> [B]."""
    return (a * b).flatten(1).sum(1)


def norm(x: Tensor) -> Tensor:
    """The length of each waveform, [B, ..., L] -> [B]; its gradient at zero is zero, not infinite."""
    return (inner(x, x) + torch.finfo(x.dtype).tiny).sqrt()


def closed_form_inductance(v: Tensor, slope: Tensor) -> Tensor:
    """M* = -<v, x dI/dt> / <x dI/dt, x dI/dt> of each waveform, [B] in henry: least squares, differentiable in `v`.

    `slope` [B, ..., L] is x dI/dt. A current that never changes gives 0.
    """
    return -inner(v, slope) / inner(slope, slope).clamp_min(torch.finfo(v.dtype).tiny)


def pooled_inductance(v: Tensor, slope: Tensor, group: Tensor, groups: int) -> Tensor:
    """One M for each of `groups` groups, [groups] in henry: least squares with every waveform weighing the same.

    Minimises the sum of ||v + M slope||^2 / ||v||^2 over the waveforms of a group; `group` [B] says which they are
    in. A group without waveforms gets the M of all of them together.
    """
    weight = 1 / inner(v, v).clamp_min(torch.finfo(v.dtype).tiny)
    above, below = weight * inner(v, slope), weight * inner(slope, slope)
    sums = torch.zeros(2, groups, dtype=v.dtype, device=v.device)
    sums = sums.index_add(1, group, torch.stack([above, below]))
    empty = sums[1] == 0
    overall = -above.sum() / below.sum().clamp_min(torch.finfo(v.dtype).tiny)
    return torch.where(empty, overall, -sums[0] / sums[1].where(~empty, torch.ones_like(sums[1])))


def residual(v: Tensor, slope: Tensor, inductance: Tensor) -> Tensor:
    """r = v + M x dI/dt, [B, ..., L] in volt: zero where the law holds. `inductance` [B] or a scalar, in henry."""
    return v + per_wave(inductance, slope) * slope


def relative_residual(v: Tensor, slope: Tensor, inductance: Tensor, least: Tensor | float = 0.0) -> Tensor:
    """||r|| / max(||v||, least) of each waveform, [B]: free of the circuit's scale and of where the period starts."""
    return norm(residual(v, slope, inductance)) / _at_least(norm(v), least)


def agreement(v: Tensor, slope: Tensor, least: Tensor | float = 0.0) -> Tensor:
    """The correlation of v with -x dI/dt of each waveform, [B] in [-1, 1]: needs no M, but knows the sign.

    A voltage whose norm (without its mean) is below `least` [B] is divided by that: it correlates the less the fainter.
    """
    v, slope = (s - s.mean(-1, keepdim=True) for s in (v, slope))
    return -inner(v, slope) / (_at_least(norm(v), least) * norm(slope))


def _at_least(size: Tensor, least: Tensor | float) -> Tensor:
    return torch.maximum(size, torch.as_tensor(least, dtype=size.dtype, device=size.device))
