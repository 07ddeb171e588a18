"""Waves through strided convolutions: a vector for all, and tokens for attention."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Gt, MinLen
from torch import Tensor, nn

from vqtool.api import Batch, Condition, Conditioner, DataSpec, Rows
from vqtool.errors import VqtoolError
from vqtool.layers.conv import Conv, Padding, ResidualBlock, Stages
from vqtool.layers.features import Features, all_rows


class Conv1dConditioner(Conditioner):
    """Each wave over its rms, [B, C, L] -> tokens [B, S, dim]; the vector is their mean plus the metadata."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        dim: Annotated[int, Gt(0), Doc("width of vector and tokens")] = 64,
        strides: Annotated[tuple[int, ...], MinLen(1), Doc("downsampling of each stage")] = (4, 2),
        kernel: Annotated[int, Gt(0), Doc("kernel of the residual blocks")] = 5,
        padding: Annotated[Padding, Doc("circular: a window is one period of a periodic signal")] = "zeros",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.waves = sorted(spec.named("wave"))
        if not self.waves:
            raise VqtoolError("the conditioner `conv1d` reads waves, and the data have none",
                              hint='kind = "spectrum" with harmonics = 0 reads metadata alone')  # fmt: skip
        self.features = Features(spec)
        self.metadata = nn.Linear(self.features.size + len(self.waves), dim)
        channels = sum(spec.fields[name].shape[0] for name in self.waves)
        self.start = Conv(channels, dim, kernel, mode=padding)
        self.stages = Stages(
            [
                ResidualBlock(dim, kernel, condition_dim=dim, mode=padding),
                Conv(dim, dim, 2 * stride, stride=stride, mode=padding),
            ]
            for stride in strides
        )

    def fit(self, rows: Rows) -> None:
        """Standardise the metadata on the training rows."""
        self.features.fit(all_rows(rows))

    def forward(self, batch: Batch) -> Condition:
        """Read the batch's conditions."""
        scaled, sizes = zip(*(self._scale(batch[name].float()) for name in self.waves), strict=True)
        metadata = self.metadata(torch.cat([self.features(batch), *sizes], dim=1))
        h = self.stages(self.start(torch.cat(scaled, dim=1)), metadata)
        return Condition(metadata + h.mean(-1), h.transpose(1, 2))

    def _scale(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """A wave over its rms, and the log of that rms."""
        rms = wave.square().mean((1, 2), keepdim=True).sqrt() + 1e-12
        return wave / rms, rms.log().flatten(1)
