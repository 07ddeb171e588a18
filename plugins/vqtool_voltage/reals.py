"""Harmonics in real numbers: what `frames` and the norm compute, for exporters whose operators know no complex ones.

A line a - i b of a spectrum is the pair (a, b) = (sum x cos, sum x sin) over the period. The results are those of the
complex formulas up to rounding, by products with two small matrices in place of a fast transform.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def waves(length: int, orders: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [H, L] of some orders over one period."""
    at = torch.arange(length, device=orders.device, dtype=orders.dtype)
    angle = 2 * math.pi / length * (orders[:, None] * at).remainder(length)
    return angle.cos(), angle.sin()


def phase_of(x: Tensor) -> Tensor:
    """The phase of the fundamental, [..., L] -> [...]."""
    cosine, sine = waves(x.shape[-1], torch.ones(1, device=x.device, dtype=x.dtype))
    return torch.atan2(-(x * sine[0]).sum(-1), (x * cosine[0]).sum(-1))


def rotate(x: Tensor, phase: Tensor) -> Tensor:
    """`frames.rotate`: `x` [B, ..., L] later by `phase` [B] radians of its fundamental."""
    length = x.shape[-1]
    orders = torch.arange(length // 2 + 1, device=x.device, dtype=x.dtype)
    cosine, sine = waves(length, orders)
    a, b = x @ cosine.T, x @ sine.T
    phase = phase.reshape(phase.shape + (1,) * (x.dim() - phase.dim()))
    c, s = (phase * orders).cos(), (phase * orders).sin()
    if length % 2 == 0:  # the Nyquist line by the sign it has after the nearest whole number of samples
        whole = (phase * (length / (2 * math.pi))).round()
        last = orders == length // 2
        c, s = torch.where(last, 1 - 2 * whole.remainder(2), c), torch.where(last, torch.zeros_like(s), s)
    one = torch.ones_like(orders)
    twice = torch.where((orders == 0) | (orders == length / 2), one, 2 * one) / length
    return ((a * c - b * s) * twice) @ cosine + ((a * s + b * c) * twice) @ sine


def slope_lines(current: Tensor, frequency: Tensor, harmonics: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts [B, H] of the lines of dI/dt, from one period [B, L] at `frequency` [B]."""
    orders = torch.arange(1, harmonics + 1, device=current.device, dtype=current.dtype)
    cosine, sine = waves(current.shape[-1], orders)
    speed = 2 * math.pi * orders * frequency[:, None]
    return (current @ sine.T) * speed, (current @ cosine.T) * speed


def predicted(slope: tuple[Tensor, Tensor], design: Tensor, beta: Tensor, length: int) -> Tensor:
    """The voltage [B, L] of which -slope / (design beta) are the lines; `design` [B, H, P], `beta` [B, P, 2]."""
    re, im = (design[..., None] * beta[:, None]).sum(2).unbind(-1)
    size = re.square() + im.square()
    size = torch.where(size < 1e-60, torch.ones_like(size), size)
    across, along = slope
    orders = torch.arange(1, re.shape[1] + 1, device=re.device, dtype=re.dtype)
    cosine, sine = waves(length, orders)
    real, imaginary = -(across * re + along * im) / size, -(along * re - across * im) / size
    return (real @ cosine - imaginary @ sine) * (2 / length)
