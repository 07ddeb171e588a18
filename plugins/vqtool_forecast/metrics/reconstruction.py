"""How well codes keep a window of a series: its shape, its mean and its range."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vqtool.api import DataSpec, Metric


class Reconstruction(Metric):
    """`mse`: the squared error in units of each window's own variance, the mean over windows and channels.

    Those are the units of reversible instance normalisation. `scale_error.mean` is |mean(x_hat) - mean(x)| and
    `scale_error.range` |range(x_hat) - range(x)|, both over the range of x, as fractions, means over the windows.
    Constant windows have neither deviation nor range: they are left out and counted in `constant`.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.sums = torch.zeros(3, dtype=torch.float64)
        self.n = self.constant = 0

    def update(self, *, x: Tensor, x_hat: Tensor, future: Tensor) -> None:
        """`x`, `x_hat` [B, C, L]; `future` is not read: it shows that these are windows of series."""
        x, x_hat = (v.detach().cpu().double().flatten(0, -2) for v in (x, x_hat))
        span = x.amax(1) - x.amin(1)
        alive = span > 0
        self.constant += int((~alive).sum())
        x, x_hat, span = x[alive], x_hat[alive], span[alive]
        self.n += len(x)
        self.sums += torch.stack([
            ((x_hat - x).square().mean(1) / x.var(1, correction=0)).sum(),
            ((x_hat.mean(1) - x.mean(1)).abs() / span).sum(),
            ((x_hat.amax(1) - x_hat.amin(1) - span).abs() / span).sum(),
        ])  # fmt: skip

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        names = ("mse", "scale_error.mean", "scale_error.range")
        figures = dict(zip(names, (self.sums / self.n).tolist(), strict=True)) if self.n else {}
        return figures | ({"constant": float(self.constant)} if self.constant else {})
