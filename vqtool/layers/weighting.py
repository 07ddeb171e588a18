"""Tokens divided by a power of the energy around them, and multiplied back, without side information."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn import functional as F

Tilt = Annotated[
    float, Ge(0), Doc("dB that errors may be larger in the highest band than in the lowest, by `weighting`")
]
Exponent = Annotated[float, Ge(0), Lt(1), Doc("of the energy around a token, that `weighting` divides it by")]
OVER_TIME, OVER_BANDS = (1, 2, 1), (1, 2, 4, 2, 1)  # how much neighbours count, in moments and in bands
FLOOR = 1e-7  # mean square of a feature that counts as silence
ROUNDS = 24  # each takes a share of `1 - exponent` off what is missing, and sees one moment farther


class Weighting(nn.Module):
    """y = x / (t w(x)) with w = (E + floor)^(exponent / 2), where E is the smoothed mean square of the tokens around.

    A quantizer's error, which is alike for all y, then follows the signal: it is larger where the signal is loud, in
    time and in frequency, as CELP's weighting filters have it (Schroeder and Atal 1985). The inverse needs no side
    information. It looks for the energies e of x that solve e = e_y (K e + floor)^exponent, K being the smoothing. As
    the exponent is below 1, the right side is a contraction of log e (Thompson's metric), so there is one solution,
    and repeating the equation finds it.

    The tilt t rises from 1 in the lowest band by so many dB to the highest, as the bands rise: an ear sums errors over
    bands that are the wider the higher they are (Zwicker and Terhardt 1980), and an error in a wide one takes more
    codes to avoid.

    Weights are constants to the gradient. For the two together, which give back what they are given, that is exact.
    """

    tilt: Tensor

    def __init__(self, bands: int, exponent: float, tilt: float = 0.0) -> None:
        super().__init__()
        self.bands, self.exponent = bands, exponent
        self.register_buffer("tilt", 10 ** (tilt / 20 * torch.linspace(0, 1, bands))[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x` [B, D, T], T moments of D features in `bands` bands; what lies around it is silent."""
        return self._times(x, (self.tilt * self._weights(self._energies(x))).reciprocal())

    def inverse(self, y: Tensor) -> Tensor:
        """What weighs `y` [B, D, T], up to a relative error of about exponent^24."""
        y = self._times(y, self.tilt)
        own = self._energies(y)
        energies = own ** (1 / (1 - self.exponent))  # the solution where all are alike
        for _ in range(ROUNDS):
            energies = own * self._weights(energies).square()
        return self._times(y, self._weights(energies))

    @property
    def reach(self) -> int:
        """How many moments either side `inverse` sees; `forward` sees one."""
        return ROUNDS + 1

    @torch.no_grad()
    def _energies(self, x: Tensor) -> Tensor:
        """The mean square of each token [B, bands, T] of `x` [B, D, T]."""
        return x.float().unflatten(1, (self.bands, -1)).square().mean(2)

    @torch.no_grad()
    def _weights(self, energies: Tensor) -> Tensor:
        """w [B, bands, T] of energies of that shape."""
        around = smoothed(smoothed(energies, OVER_TIME, 2), OVER_BANDS, 1)
        return (around + FLOOR) ** (self.exponent / 2)

    def _times(self, x: Tensor, weights: Tensor) -> Tensor:
        """`x` [B, D, T] times a weight for each token."""
        return (x.unflatten(1, (self.bands, -1)) * weights.to(x.dtype)[:, :, None]).flatten(1, 2)


def shared_options(bands: int, weighting: str, exponent: float, tilt: float) -> dict[str, int | float | str]:
    """The options, by name, that a decoder which undoes a weighting has to have as the encoder has them."""
    same: dict[str, int | float | str] = {"weighting": weighting}
    return same if weighting == "none" else same | {"bands": bands, "exponent": exponent, "tilt": tilt}


def smoothed(values: Tensor, shares: tuple[int, ...], axis: int) -> Tensor:
    """The mean of `values` and their neighbours along an axis, weighted by `shares`; zeros lie around.

    Sums of slices round alike at every place, whatever the length: a piece of a sound gives what the whole gives.
    """
    size, half = values.shape[axis], len(shares) // 2
    sides = [0, 0] * (values.dim() - 1 - axis) + [half, half]
    padded, total = F.pad(values, sides), torch.zeros_like(values)
    for k, share in enumerate(shares):
        total = total + padded.narrow(axis, k, size) * (share / sum(shares))
    return total
