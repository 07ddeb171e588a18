"""What computes in float32 beside networks in half precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vqtool.api import Batch, DataSpec, Field, Norm
from vqtool.api.precision import HALVES, widened

SPEC = DataSpec({"x": Field("signal", (1, 8))}, {})


class Matrix(Norm):
    """Rotates signals: in half precision the way back would be lost in rounding."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        torch.manual_seed(0)
        self.turn = torch.linalg.qr(torch.randn(8, 8))[0]

    def forward(self, batch: Batch) -> tuple[Batch, Tensor]:
        return {**batch, "x": batch["x"] @ self.turn}, batch["x"].new_zeros(len(batch["x"]), 0)

    def invert(self, x: Tensor, batch: Batch, sent: Tensor) -> Tensor:
        return x @ self.turn.T


@pytest.mark.parametrize("precision", HALVES)
def test_norms_compute_in_float32(precision: str) -> None:
    norm, x = Matrix(), torch.randn(4, 1, 8)
    with torch.autocast("cpu", dtype=HALVES[precision]):
        normed, sent = norm({"x": x})
        back = norm.invert(normed["x"], {"x": x}, sent)
        other = norm.invert(normed["x"].to(HALVES[precision]), {"x": x}, sent)
    assert back.dtype == other.dtype == torch.float32
    assert (back - x).abs().max() < 1e-5


def test_everything_is_widened() -> None:
    half = torch.ones(2, dtype=torch.float16)
    given = {"a": [half, (half,)], "codes": torch.ones(2, dtype=torch.long), "name": "x"}
    made = widened(given)
    assert made["a"][0].dtype == made["a"][1][0].dtype == torch.float32
    assert made["codes"].dtype == torch.long
    assert made["name"] == "x"
