"""The ratio of short-term to long-term average energy: the detector of every observatory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor

from vqtool.api import Baseline, Batch, DataSpec
from vqtool.errors import VqtoolError
from vqtool_seismic.detection import bandpassed, sta_lta


class StaLta(Baseline):
    """The largest recursive STA/LTA of the vertical component, band-passed, as the score of a window."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        short: Annotated[float, Gt(0), Doc("of the short-term average, in s")] = 0.5,
        long: Annotated[float, Gt(0), Doc("of the long-term average, in s")] = 5.0,
        low: Annotated[float, Gt(0), Doc("of the band, in Hz")] = 1.0,
        high: Annotated[float, Gt(0), Doc("of the band, in Hz")] = 20.0,
    ) -> None:
        super().__init__(spec)
        if spec.sample_rate is None:
            raise VqtoolError("the data have no sample rate", where="baseline `sta-lta`")
        self.rate, self.short, self.long, self.band = spec.sample_rate, short, long, (low, high)

    def predict(self, batch: Batch) -> Mapping[str, Tensor]:
        """`event_score` [B]: the largest ratio in the window."""
        vertical = bandpassed(batch["x"][:, 0].cpu().double().numpy(), self.rate, *self.band)
        ratio = sta_lta(vertical, round(self.short * self.rate), round(self.long * self.rate))
        return {"event_score": torch.from_numpy(np.ascontiguousarray(ratio.max(1)))}
