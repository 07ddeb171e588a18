"""What the plain models share: all rows of a split at once, and quadratic features of the metadata."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import Batch, DataSpec, Rows
from vqtool_voltage.fields import completed


def everything(rows: Rows) -> Batch:
    """All rows of a split as one batch."""
    return completed(rows.__getitems__(list(range(len(rows)))))


class Quadratic:
    """1, z, and all products z_a z_b of standardised metadata z: [B, n] -> [B, (n + 1)(n + 2) / 2] in float64."""

    def __init__(self, meta: Tensor) -> None:
        meta = meta.double()
        self.mean = meta.mean(0)
        self.scale = (meta - self.mean).square().mean(0).sqrt().clamp_min(1e-12)

    def __call__(self, meta: Tensor) -> Tensor:
        z = (meta.double() - self.mean) / self.scale
        z = torch.cat([z.new_ones(len(z), 1), z], 1)
        a, b = torch.triu_indices(z.shape[1], z.shape[1])
        return z[:, a] * z[:, b]


def metadata(spec: DataSpec, batch: Batch) -> Tensor:
    """The scalar conditions [B, n], with no columns where the data name none."""
    known = [batch[name].reshape(len(batch["dt"]), -1) for name in spec.named("scalar")]
    return torch.cat(known, 1) if known else batch["dt"].new_zeros(len(batch["dt"]), 0)
