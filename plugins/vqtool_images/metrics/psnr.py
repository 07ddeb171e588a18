"""Peak signal-to-noise ratio of pictures, in decibels."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vqtool.api import DataSpec, Metric, expect_images
from vqtool_images.levels import pair

FLOOR = 1e-12  # of the mean squared error: figures end at 120 dB, since JSON knows no infinity


class Psnr(Metric):
    """`psnr.db`: 10 log10(peak^2 / mse) of each picture, the mean over pictures, the usual figure.

    `psnr.pooled_db` is the same of the mean squared error over all pictures: never larger, and ruled by the worst. The
    peak is the distance from black to white, and estimates are limited to that range, as saved pictures are.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        expect_images(spec.extent, "the metric `psnr`")
        self.errors: list[Tensor] = []

    def update(self, *, x: Tensor, x_hat: Tensor) -> None:
        """`x` and `x_hat` [B, C, H, W]."""
        x, x_hat = pair(self.spec, x, x_hat)
        self.errors.append((x - x_hat).square().flatten(1).mean(1))

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        if not self.errors:
            return {}
        errors = torch.cat(self.errors)
        pooled = max(float(errors.mean()), FLOOR)
        return {
            "psnr.db": float(-10 * errors.clamp_min(FLOOR).log10().mean()),
            "psnr.pooled_db": -10 * math.log10(pooled),
        }
