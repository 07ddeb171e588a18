"""QAM symbols under Rayleigh fading that the receiver knows, in white Gaussian noise."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import Quantized
from vqtool_semcom.bit_channel import Noise
from vqtool_semcom.symbol_channel import SymbolChannel


class Rayleigh(SymbolChannel):
    """y = h x + n with an independent h ~ CN(0, 1) for every symbol (ideal interleaving); see `SymbolChannel`.

    The receiver compares |y - h s|^2; it does not divide by h, which would scale the noise as well.
    """

    fading = True

    def draw(self, quantized: Quantized) -> Noise:
        (noise,) = super().draw(quantized)
        fade = torch.randn(*noise.shape[:2], 2, device=noise.device) / 2**0.5
        return noise, fade.square().sum(-1).sqrt()

    def gain(self, noise: Noise) -> Tensor:
        return noise[1]
