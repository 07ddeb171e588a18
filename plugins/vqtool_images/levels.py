"""Black and white of a data set's images: what differences are measured against."""

from __future__ import annotations

from torch import Tensor

from vqtool.api import DataSpec


def levels(spec: DataSpec) -> tuple[float, float]:
    """The values of black and white: `levels` of the spec's metadata, where the data say it; else 0 and 1."""
    black, white = spec.metadata.get("levels", (0.0, 1.0))
    return float(black), float(white)


def pair(spec: DataSpec, x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor]:
    """Images and estimates [B, C, H, W] as float64 shares of white; estimates are limited to what a picture can hold.

    Raises:
        ValueError: the shapes differ.
    """
    if x.shape != x_hat.shape:
        raise ValueError(f"an estimate of the shape {tuple(x_hat.shape)} for images of {tuple(x.shape)}")
    black, white = levels(spec)
    x, x_hat = ((v.detach().cpu().double() - black) / (white - black) for v in (x, x_hat))
    return x, x_hat.clamp(0, 1)
