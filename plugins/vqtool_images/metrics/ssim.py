"""Structural similarity of pictures."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtool.api import DataSpec, Metric, expect_images
from vqtool_images.levels import pair

SIDE, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


class Ssim(Metric):
    """`ssim`: the mean over pictures, channels and places; 1 for equal pictures.

    Wang et al. 2004 (doi 10.1109/TIP.2003.819861), equation 13: Gaussian windows of 11 x 11 with a deviation of 1.5
    pixels that lie within the picture; smaller windows in smaller pictures.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        expect_images(spec.extent, "the metric `ssim`")
        self.sum = 0.0
        self.n = 0

    def update(self, *, x: Tensor, x_hat: Tensor) -> None:
        """`x` and `x_hat` [B, C, H, W]."""
        x, y = (v.flatten(0, 1)[:, None] for v in pair(self.spec, x, x_hat))  # channels apart
        mean_x, mean_y = smoothed(x), smoothed(y)
        var_x, var_y = smoothed(x * x) - mean_x**2, smoothed(y * y) - mean_y**2
        both = smoothed(x * y) - mean_x * mean_y
        above = (2 * mean_x * mean_y + C1) * (2 * both + C2)
        similarity = above / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))
        self.sum += float(similarity.flatten(1).mean(1).sum())
        self.n += len(x)

    def compute(self) -> Mapping[str, float]:
        """The figure named above."""
        return {"ssim": self.sum / self.n} if self.n else {}


def smoothed(x: Tensor) -> Tensor:
    """[N, 1, H, W] under Gaussian windows within the picture."""
    for axis in (2, 3):
        side = min(SIDE, (x.shape[axis] - 1) // 2 * 2 + 1)
        place = torch.arange(side, dtype=x.dtype) - side // 2
        weights = (-(place**2) / (2 * SIGMA**2)).exp()
        shape = [1, 1, 1, 1]
        shape[axis] = side
        x = F.conv2d(x, (weights / weights.sum()).reshape(shape))
    return x
