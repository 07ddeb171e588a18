"""A data set: sines of random phase and amplitude."""

import torch

from vqtool.api import Data, DataSpec, Field, Rows, TensorRows


class Sines(Data):
    """512 windows [1, 64] a split; the last split is held out."""

    splits = ("train", "valid", "test")
    spec = DataSpec({"x": Field((1, 64), "signal")})

    def rows(self, split: str) -> Rows:
        generator = torch.Generator().manual_seed(self.splits.index(split))
        phase, amplitude = torch.rand(2, 512, 1, 1, generator=generator)
        return TensorRows({"x": (0.5 + amplitude) * torch.sin(6.2832 * (phase + torch.arange(64) / 32))})
