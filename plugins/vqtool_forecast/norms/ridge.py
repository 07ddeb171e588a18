"""What a closed-form linear forecast leaves: codes of a future write the residual only."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from torch import Tensor

from vqtool.api import Batch, DataSpec, Rows
from vqtool_forecast import foretell
from vqtool_forecast.instance import statistics
from vqtool_forecast.norms.revin import RevIn


class RidgeNorm(RevIn):
    """Histories as `revin` frames them; futures as what is left of them after a linear forecast, over the deviation.

    The forecast is ridge regression from the history, less its last value, drawn to the seasonal mean, plus (with
    `profile`) a profile for every series and place in the season, in units of the history's range. It is homogeneous:
    of a history a x + b it is a f + b. Series that the training rows did not have get the forecast without a profile.
    """

    plain: Tensor
    weight: Tensor
    shape: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        profile: Annotated[bool, Doc("learn what every series does at every place in its season")] = True,
    ) -> None:
        super().__init__(spec)
        about = spec.about
        self.profile, self.reach, self.season = profile, int(about["horizon"]), int(about["season"])
        self.register_buffer("plain", torch.zeros(spec.length, self.reach))
        self.register_buffer("weight", torch.zeros(spec.length, self.reach))
        self.register_buffer("shape", torch.zeros(len(about["ids"]), self.season, self.reach))

    @torch.no_grad()
    def fit(self, rows: Rows) -> None:
        """The linear forecast, from the training and validation windows."""
        found = foretell.fit(rows, self.spec.about["horizons"], self.season, profile=self.profile)
        self.plain.copy_(found.plain)
        self.weight.copy_(found.weight)
        self.shape.copy_(found.profile)

    def ahead(self, batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
        """The linear forecast and the history's deviation; at most `reach` steps."""
        x = batch["x"]
        _, deviation, span = (value.to(x.dtype) for value in statistics(x))
        known, profile = self._profile(batch, steps)  # [B, C], [B, C, steps]
        last = x[..., -1:]
        weighed = torch.where(known[..., None], (x - last) @ self.weight[:, :steps], (x - last) @ self.plain[:, :steps])
        return last + weighed + span * profile, deviation

    def moved_on(self, batch: Batch, values: Tensor) -> Batch:
        """As ever, and the place in the season moves too."""
        moved = super().moved_on(batch, values)
        if "phase" in batch:
            moved["phase"] = (batch["phase"] + values.shape[-1]) % self.season
        return moved

    def _profile(self, batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
        """Which rows are of known series, and their profiles; zero for the others."""
        x = batch["x"]
        if "phase" not in batch or not self.profile:
            return x.new_zeros(x.shape[:2], dtype=torch.bool), x.new_zeros(*x.shape[:2], steps)
        series = batch["series"][:, None] if "series" in batch else torch.arange(x.shape[1], device=x.device)
        phase = batch["phase"][:, None]
        known = ((series >= 0) & (phase >= 0)).expand(x.shape[:2])
        found = self.shape[series.clamp(min=0), phase.clamp(min=0), :steps].expand(*x.shape[:2], steps)
        return known, found * known[..., None]
