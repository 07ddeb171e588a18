"""Reversible instance normalisation: every history at mean 0 and deviation 1, which are sent apart, exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import Batch, DataSpec, Norm
from vqtool_forecast.instance import TINY, statistics


class RevIn(Norm):
    """x -> (x - mean) / deviation with the history's own statistics (Kim et al., ICLR 2022), without learned gains.

    Mean, deviation and range of every channel are sent apart as they are. `invert` moves and stretches the decoded
    window so that its mean and range are those sent. A future is put into the frame of its *history*: nobody knows
    its own statistics when it is to be foretold. For a history a x + b, a > 0, the frame is the same.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        places = range(spec.channels) if spec.channels > 1 else ("",)
        self.sends = tuple(f"{name}{place}" for name in ("mean", "deviation", "range") for place in places)
        self.sent_bits = 32.0 * len(self.sends)

    def forward(self, batch: Batch) -> tuple[Batch, Tensor]:
        """The batch with `x` [B, C, L] in its own units of deviation, and mean, deviation and range [B, 3 C]."""
        mean, deviation, span = statistics(batch["x"])
        framed = ((batch["x"].double() - mean) / deviation).to(batch["x"].dtype)
        sent = torch.cat([mean, deviation, span], dim=1)[..., 0]
        return {**batch, "x": framed}, sent.to(batch["x"].dtype)

    def invert(self, x: Tensor, batch: Batch, sent: Tensor) -> Tensor:
        """`x` [B, C, L] decoded in the frame, at the mean and the range of the window it stands for."""
        mean, _, span = (part[..., None].double() for part in sent.chunk(3, dim=1))
        x = x.double()
        decoded = x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)
        stretch = torch.where(decoded > TINY, span / decoded.clamp_min(TINY), 0.0)
        return (mean + stretch * (x - x.mean(-1, keepdim=True))).to(sent.dtype)

    def ahead(self, batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
        """The history's mean and deviation."""
        mean, deviation, _ = (value.to(batch["x"].dtype) for value in statistics(batch["x"]))
        return mean.expand(*mean.shape[:-1], steps), deviation
