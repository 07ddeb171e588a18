"""How close the waveform comes: SNR, SI-SDR, shift and polarity, range ratio and DC, clip by clip."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge
from torch import Tensor

from vqtool.api import DataSpec, Metric, expect_windows

FLOOR = 1e-12  # of the signal's energy: figures end at 120 dB, since JSON knows no infinity


class SiSdr(Metric):
    """Every clip counts once, however long; the rows of a clip, known by `clip`, are taken together.

    `snr.db` is 10 log10(|x|^2 / |x - y|^2) at no shift, so a wrong gain, sign or delay counts as noise. `si_sdr.db` is
    10 log10(|ax|^2 / |ax - y|^2) with a = <x, y> / <x, x> (Le Roux et al. 2019, arXiv 1811.02508), larger is better, at
    that shift of up to `max_shift` samples that makes it largest: a codec that delays by a sample does not read as
    noise. It does not see gain and polarity; so `si_sdr.shift` tells the mean size of the shift (0: aligned) and
    `si_sdr.flipped` the share of clips with a < 0. `range_ratio` is the spread of y over that of x, `dc` the mean of
    y - x over the spread of x (both means over clips). Silent clips are left out and counted in `snr.silent`.
    """

    def __init__(
        self, spec: DataSpec, *, max_shift: Annotated[int, Ge(0), Doc("samples, either way, that are searched")] = 32
    ) -> None:
        super().__init__(spec)
        expect_windows(spec.extent, "the metric `si-sdr`", otherwise="psnr")
        self.max_shift = max_shift
        self.sums: dict[int, Tensor] = defaultdict(lambda: torch.zeros(6 + 2 * max_shift, dtype=torch.float64))
        self.unnamed = 0

    def update(self, *, x: Tensor, x_hat: Tensor, clip: Tensor | None = None, samples: Tensor | None = None) -> None:
        """`x` and `x_hat` [B, C, L]; `clip` [B] says which rows belong together, `samples` [B] how many are real."""
        if x.shape != x_hat.shape:
            raise ValueError(f"an estimate of the shape {tuple(x_hat.shape)} for a signal of {tuple(x.shape)}")
        x, y = (s.detach().cpu().double() for s in (x, x_hat))
        if samples is not None:
            real = torch.arange(x.shape[-1]) < samples.cpu()[:, None, None]
            x, y = x * real, y * real
        if clip is None:
            clip = -1 - self.unnamed - torch.arange(len(x))
            self.unnamed += len(x)
        count = samples.cpu().double() * x.shape[1] if samples is not None else torch.full((len(x),), x[0].numel())
        energies = [x.square(), y.square(), x, y]
        sums = torch.stack([count, *(each.flatten(1).sum(1) for each in energies), *self._products(x, y)], 1)
        for which, row in zip(clip.tolist(), sums, strict=True):
            self.sums[int(which)] += row

    def _products(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """The sums of x[n] y[n + d] of each row for every shift d, 2 max_shift + 1 of [B]."""
        length = x.shape[-1]
        products = []
        for d in range(-self.max_shift, self.max_shift + 1):
            a, b = x[..., max(0, -d) : max(0, length - d)], y[..., max(0, d) : max(0, length + d)]
            products.append(torch.einsum("bcl,bcl->b", a, b))
        return products

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        each = [_figures(row, self.max_shift) for row in self.sums.values()]
        heard = [one for one in each if one is not None]
        silent = {"snr.silent": float(len(each) - len(heard))} if len(heard) < len(each) else {}
        return {name: sum(one[name] for one in heard) / len(heard) for name in heard[0]} | silent if heard else silent


def _figures(row: Tensor, most: int) -> dict[str, float] | None:
    """One clip, from its sums: count, |x|^2, |y|^2, the sums of x and y, <x, y> at every shift."""
    n, xx, yy, sum_x, sum_y = row[:5].tolist()
    products = row[5:]
    if xx == 0 or n == 0:
        return None
    best = int(products.abs().argmax()) if bool((products != 0).any()) else most
    if products[most].abs() >= products[best].abs() * (1 - 1e-9):
        best = most  # no shift where none is better
    explained = float(products[best]) ** 2 / xx
    error = xx - 2 * float(products[most]) + yy
    var_x, var_y = xx / n - (sum_x / n) ** 2, yy / n - (sum_y / n) ** 2
    return {
        "snr.db": 10 * math.log10(xx / max(error, FLOOR * xx)),
        "si_sdr.db": 10 * math.log10(max(explained / yy, FLOOR) / max(1 - explained / yy, FLOOR)) if yy else -120.0,
        "si_sdr.shift": float(abs(best - most)),
        "si_sdr.flipped": float(products[best] < 0),
        "range_ratio": math.sqrt(max(var_y, 0.0) / var_x) if var_x > 0 else 1.0,
        "dc": (sum_y - sum_x) / n / math.sqrt(var_x) if var_x > 0 else 0.0,
    }
