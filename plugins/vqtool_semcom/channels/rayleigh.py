"""QAM symbols under Rayleigh fading that the receiver knows, in white Gaussian noise."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import Quantized
from vqtool_semcom.symbol_channel import SymbolChannel


class Rayleigh(SymbolChannel):
    """y = h x + n with an h ~ CN(0, 1) of its own for every symbol (ideal interleaving); see `SymbolChannel`.

    The receiver weighs |y - h s|^2: it never divides by h as if the noise stayed as it was.
    """

    fading = True

    def draw(self, quantized: Quantized) -> tuple[Tensor, ...]:
        (noise,) = super().draw(quantized)
        fade = torch.randn(*noise.shape[:2], 2, device=noise.device) / 2**0.5
        return noise, fade.square().sum(-1).sqrt()

    def gain(self, noise: tuple[Tensor, ...]) -> Tensor:
        return noise[1]
