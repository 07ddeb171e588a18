"""Reversible instance normalisation: every history at mean 0 and deviation 1, which are exact side information."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import Batch, DataSpec, Norm, expect_windows
from vqtool.errors import VqtoolError

FLAT = 1e-6  # of a history's size: a smaller deviation is float noise, and counts as this much
TINY = 1e-30


@torch.no_grad()
def instance_stats(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, deviation, minimum and maximum of `x` [..., L], each [..., 1] in float64; the deviation is above 0.

    The floor under the deviation is relative to the history's own size, so series of any unit are treated alike.
    """
    x = x.double()
    mean = x.mean(-1, keepdim=True).float().double()  # as it is sent
    floor = FLAT * x.abs().amax(-1, keepdim=True)
    deviation = torch.maximum((x - mean).square().mean(-1, keepdim=True).sqrt(), floor).clamp_min(TINY)
    return mean, deviation, x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)


class RevIn(Norm):
    """x -> (x - mean) / deviation with the history's own statistics (Kim et al., ICLR 2022), without learned gains.

    Mean, deviation, minimum and maximum of every channel are side information, sent as they are, and `invert` gives
    them to the decoded window: the codes carry none of the four. A future is put into the frame of its *history*: its
    own statistics are not known when it is forecast. For a history a x + b, a > 0, the frame is the same.
    """

    reads_covariates = False

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        if not self.reads_covariates and (spec.metadata.get("known") or spec.metadata.get("observed")):
            raise VqtoolError("the norm `revin` reads no `known` and `observed` columns", hint="norm.kind=ridge")
        expect_windows(spec.extent, "the norm `revin`")
        places = range(spec.channels) if spec.channels > 1 else ("",)
        self.sends = tuple(f"{name}{place}" for name in ("mean", "deviation", "low", "high") for place in places)

    def forward(self, batch: Batch) -> tuple[Batch, Tensor]:
        """The batch with `x` [B, C, L] in its own units of deviation, and the side information [B, 4 C]."""
        x = batch["x"]
        mean, deviation, *extremes = instance_stats(x)
        sent = torch.cat([mean, deviation, *extremes], dim=1)[..., 0]
        return {**batch, "x": ((x.double() - mean) / deviation).to(x.dtype)}, sent.to(x.dtype)

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

    def future_stats(self, batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
        """The history's mean and deviation."""
        x = batch["x"]
        mean, deviation = (value.to(x.dtype).expand(*x.shape[:-1], steps) for value in instance_stats(x)[:2])
        return mean, deviation
