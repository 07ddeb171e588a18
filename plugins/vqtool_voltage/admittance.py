"""What current a voltage drives at each harmonic: the admittance of every material, fitted on measured pairs.

Faraday's law v = -M dI/dt says dI_h = -V_h / M at every harmonic. On real cores permeability falls with frequency and
the winding's capacitance takes over, so the ratio is a complex function of the *absolute* frequency h f, of temperature
and of amplitude:

    -(dI/dt)_h = Y(h f, T, A) V_h,      Y = sum over knots k and terms m of  b_k(h f) p_m(T, A) beta_km,

with b_k piecewise linear in h f and p = (1, t, a, a^2). It is linear in beta, so a ridge with a penalty on the second
differences over the knots solves it. Being a function of h f, it carries over to fundamentals beyond those measured:
the high harmonics of slow waveforms have been there already.
"""

from __future__ import annotations

import torch
from torch import Tensor

KNOTS_HZ = (0.0, 1e5, 2e5, 3e5, 4e5, 6e5, 8e5, 1.1e6, 1.5e6, 2e6, 2.8e6, 4.4e6)
TERMS = 4
SMOOTH = 1e-2  # weight of the second differences over the knots, in units of the normal matrix's mean diagonal
RIDGE = 1e-4


def hats(frequency: Tensor) -> Tensor:
    """The piecewise-linear basis at `frequency` [...] (Hz) -> [..., knots]; constant beyond the last knot."""
    knots = torch.tensor(KNOTS_HZ, dtype=frequency.dtype, device=frequency.device)
    at = frequency.clamp(0.0, KNOTS_HZ[-1])
    left = ((at[..., None] >= knots).sum(-1) - 1).clamp(0, len(KNOTS_HZ) - 2)
    along = (at - knots[left]) / (knots[left + 1] - knots[left])
    basis = torch.zeros(*at.shape, len(KNOTS_HZ), dtype=frequency.dtype, device=frequency.device)
    basis.scatter_(-1, left[..., None], (1 - along)[..., None])
    return basis.scatter_(-1, left[..., None] + 1, along[..., None])


def design(frequency: Tensor, temperature: Tensor, amplitude: Tensor, harmonics: int) -> Tensor:
    """[B, H, knots * TERMS] from frequency (Hz), temperature and log amplitude [B], the last two standardised."""
    order = torch.arange(1, harmonics + 1, device=frequency.device, dtype=frequency.dtype)
    basis = hats(frequency[:, None] * order)
    terms = torch.stack([torch.ones_like(temperature), temperature, amplitude, amplitude.square()], -1)
    return (basis[..., None] * terms[:, None, None, :]).flatten(2)


def fit(rows: Tensor, voltage: Tensor, slope: Tensor) -> Tensor:
    """beta [knots * TERMS] (complex) of one material.

    `rows` [B, H, P] is the design, `voltage` and `slope` [B, H] the complex harmonics of v and of dI/dt. Every waveform
    weighs alike: its equations are divided by the norm of its slope.
    """
    weight = 1 / (slope.abs().square().sum(1, keepdim=True).sqrt() + 1e-30)
    left = (rows * (voltage * weight)[..., None]).flatten(0, 1)
    right = -(slope * weight).flatten()
    normal = left.conj().T @ left
    size = normal.diagonal().real.mean()
    knots = torch.tensor(KNOTS_HZ, dtype=normal.real.dtype) / 2e5
    bends = torch.zeros(len(knots) - 2, len(knots), dtype=normal.real.dtype)
    for j in range(len(knots) - 2):
        first, second = knots[j + 1] - knots[j], knots[j + 2] - knots[j + 1]
        bends[j, j : j + 3] = torch.stack([1 / first, -1 / first - 1 / second, 1 / second])
    smooth = SMOOTH * size * torch.kron(bends.T @ bends, torch.eye(TERMS, dtype=bends.dtype))
    shrink = RIDGE * size * torch.tensor([1e-3, 1.0, 1.0, 1.0], dtype=bends.dtype).repeat(len(knots)).diag()
    return torch.linalg.solve(normal + (smooth + shrink).to(normal.dtype), left.conj().T @ right)
