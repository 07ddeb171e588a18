"""Every sample by itself, companded by the mu law and rounded: 64 kbit/s at 4 bits and 16 kHz."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Interval
from torch import Tensor

from vqtool.api import Baseline, Batch, DataSpec, expect_windows

MU = 255.0


class MuLaw(Baseline):
    """ITU-T G.711's continuous law with mu = 255, and 2^bits uniform steps over full scale."""

    def __init__(self, spec: DataSpec, *, bits: Annotated[int, Interval(ge=1, le=16), Doc("per sample")] = 4) -> None:
        super().__init__(spec)
        expect_windows(spec.extent, "the baseline `mu-law`")
        self.steps = 2**bits

    def predict(self, batch: Batch) -> Mapping[str, Tensor]:
        """`x_hat` [B, C, L]."""
        x = batch["x"].clamp(-1, 1)
        pressed = x.sign() * (MU * x.abs()).log1p() / math.log1p(MU)
        code = ((pressed + 1) / 2 * self.steps).floor().clamp(0, self.steps - 1)
        level = (code + 0.5) / self.steps * 2 - 1
        return {"x_hat": level.sign() * (level.abs() * math.log1p(MU)).expm1() / MU}
