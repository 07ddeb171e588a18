"""Reversible instance normalisation: every history at mean 0 and deviation 1, which are sent apart, exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import Batch, DataSpec, Norm
from vqtool_forecast.instance import TINY, instance


class RevIn(Norm):
    """x -> (x - mean) / deviation with the history's own statistics (Kim et al., ICLR 2022), without learned gains.

    Mean, deviation, least and greatest value of every channel are sent apart as they are, and `invert` gives the
    decoded window these: none of the four is left to the codes. A future is put into the frame of its *history*: nobody
    knows its own statistics when it is to be foretold. For a history a x + b, a > 0, the frame is the same.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        places = range(spec.channels) if spec.channels > 1 else ("",)
        self.sends = tuple(f"{name}{place}" for name in ("mean", "deviation", "low", "high") for place in places)

    def forward(self, batch: Batch) -> tuple[Batch, Tensor]:
        """The batch with `x` [B, C, L] in its own units of deviation, and what is sent apart [B, 4 C]."""
        about = instance(batch["x"])
        framed = ((batch["x"].double() - about.mean) / about.deviation).to(batch["x"].dtype)
        sent = torch.cat([about.mean, about.deviation, about.low, about.high], dim=1)[..., 0]
        return {**batch, "x": framed}, sent.to(batch["x"].dtype)

    def invert(self, x: Tensor, batch: Batch, sent: Tensor) -> Tensor:
        """`x` [B, C, L] decoded in the frame, at the mean, deviation and range of the window that it stands for.

        It is moved and stretched to mean and deviation, then kept within the extremes, which its own extreme samples
        get as they are.
        """
        mean, deviation, low, high = (part[..., None].double() for part in sent.chunk(4, dim=1))
        x = x.double() - x.double().mean(-1, keepdim=True)
        size = x.square().mean(-1, keepdim=True).sqrt()
        x = mean + x * torch.where(size > TINY, deviation / size.clamp_min(TINY), 0.0)
        x = x.maximum(low).minimum(high)
        x = x.scatter(-1, x.argmax(-1, keepdim=True), high)
        return x.scatter(-1, x.argmin(-1, keepdim=True), low).to(sent.dtype)

    def ahead(self, batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
        """The history's mean and deviation."""
        about = instance(batch["x"])
        shape = (*batch["x"].shape[:-1], steps)
        return tuple(value.to(batch["x"].dtype).expand(shape) for value in (about.mean, about.deviation))
