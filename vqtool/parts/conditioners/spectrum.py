"""Periodic conditions by their harmonics, with scalars and categories, through a residual network."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval

from vqtool.api import Batch, Condition, Conditioner, DataSpec, Rows
from vqtool.layers.features import Features, all_rows
from vqtool.layers.residual_mlp import ResidualMlp


class SpectrumConditioner(Conditioner):
    """One vector [B, dim]; `harmonics = 0` reads scalars and categories only."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        dim: Annotated[int, Gt(0), Doc("width of the condition's vector")] = 64,
        harmonics: Annotated[int, Ge(0), Doc("harmonics of each wave that are read; 0: metadata only")] = 11,
        sizes: Annotated[bool, Doc("read the rms of each wave, beside its shape")] = True,
        layers: Annotated[int, Ge(0), Doc("residual layers")] = 1,
        dropout: Annotated[float, Interval(ge=0, lt=1), Doc("dropout inside the residual layers")] = 0.0,
        jitter: Annotated[float, Ge(0), Doc("noise on the standardised features in training")] = 0.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.jitter = jitter
        self.features = Features(spec, harmonics=harmonics, sizes=sizes)
        self.network = ResidualMlp(self.features.size, dim, layers, dropout=dropout)

    def fit(self, rows: Rows) -> None:
        """Standardise on the training rows."""
        self.features.fit(all_rows(rows))

    def forward(self, batch: Batch) -> Condition:
        """Read the batch's conditions."""
        features = self.features(batch)
        if self.training and self.jitter:
            features = features + self.jitter * torch.randn_like(features)
        return Condition(self.network(features))
