"""The error of an estimated signal relative to the signal: per window, and its mean, median and 95th percentile."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vqtool.api import DataSpec, Metric


class RelativeError(Metric):
    """rms(x_hat - x) / rms(x) of each window, over its channels and samples; ratios as fractions.

    `snr.db` is -20 log10 of the root mean square of those errors: every window weighs the same, however loud.
    `correlation.mean` is Pearson's; `gain_error.mean` is |rms(x_hat) / rms(x) - 1|. Windows that are zero
    throughout have no relative error: they are left out and counted in `error.silent`.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.seen: list[Tensor] = []  # each [3, B]: error, correlation, gain error
        self.silent = 0

    def update(self, *, x: Tensor, x_hat: Tensor) -> None:
        """`x` and `x_hat` [B, C, L] in the signal's own units."""
        if x.shape != x_hat.shape:
            raise ValueError(f"an estimate of the shape {tuple(x_hat.shape)} for a signal of {tuple(x.shape)}")
        x, x_hat = (s.detach().cpu().double().flatten(1) for s in (x, x_hat))
        sounds = (x != 0).any(1)
        self.silent += int((~sounds).sum())
        x, x_hat = x[sounds], x_hat[sounds]
        size, size_hat = x.square().mean(1).sqrt(), x_hat.square().mean(1).sqrt()
        error = (x_hat - x).square().mean(1).sqrt() / size
        a, b = (s - s.mean(1, keepdim=True) for s in (x, x_hat))
        spread = (a.square().sum(1) * b.square().sum(1)).sqrt()
        correlation = (a * b).sum(1) / spread.clamp_min(torch.finfo(spread.dtype).tiny)
        self.seen.append(torch.stack([error, correlation, (size_hat / size - 1).abs()]))

    def compute(self) -> Mapping[str, float]:
        """`error.{mean,median,p95}`, `snr.db`, `correlation.mean`, `gain_error.mean`; nothing if no window sounds."""
        error, correlation, gain = torch.cat(self.seen, 1) if self.seen else torch.empty(3, 0)
        silent = {"error.silent": float(self.silent)} if self.silent else {}
        if error.numel() == 0:
            return silent
        pooled = float(error.square().mean().sqrt())
        return {
            "error.mean": float(error.mean()),
            "error.median": float(error.quantile(0.5)),
            "error.p95": float(error.quantile(0.95)),
            "snr.db": -20 * math.log10(max(pooled, 1e-15)),  # finite: JSON knows no infinity
            "correlation.mean": float(correlation.mean()),
            "gain_error.mean": float(gain.mean()),
            **silent,
        }
