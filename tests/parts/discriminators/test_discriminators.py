"""Discriminators: features then logits for each scale, shifts they must not mind, and signals they cannot take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vqtool.catalog import catalog
from vqtool.errors import VqtoolError

CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "multi-scale-stft": ((2, 96), {"windows": (64, 32, 128), "width": 4}),
    "multi-period": ((2, 50), {"periods": (2, 3, 7), "width": 4, "layers": 2}),
    "patch2d": ((3, 28, 20), {"width": 4, "layers": 3}),
}
SCALES = {"multi-scale-stft": 2, "multi-period": 3, "patch2d": 1}


def made(kind: str, **options: Any) -> Any:
    shape, given = CASES[kind]
    extent = shape[1] if len(shape) == 2 else shape[1:]
    torch.manual_seed(0)
    return catalog().make("discriminator", kind, given | options, shape[0], extent)


def of(kind: str, rows: int = 3) -> Tensor:
    return torch.randn(rows, *CASES[kind][0], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_each_scale_gives_features_and_then_logits(kind: str, dtype: torch.dtype | None) -> None:
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        scales = made(kind)(of(kind))
    assert len(scales) == SCALES[kind]
    for *features, logits in scales:
        assert len(features) >= 2
        assert logits.shape[:2] == (3, 1)
        assert all(bool(one.isfinite().all()) and one.shape[0] == 3 for one in [*features, logits])


@pytest.mark.parametrize("kind", CASES)
def test_a_row_is_judged_without_the_others(kind: str) -> None:
    judge, x = made(kind), of(kind)
    for whole, alone in zip(judge(x), judge(x[1:2]), strict=True):
        for one, other in zip(whole, alone, strict=True):
            torch.testing.assert_close(one[1:2], other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CASES)
def test_it_learns_to_tell_noise_from_a_smooth_signal(kind: str) -> None:
    judge = made(kind)
    adam = torch.optim.AdamW(judge.parameters(), lr=3e-3)
    real = torch.sin(torch.arange(CASES[kind][0][-1]) / 3 + torch.rand(16, 1)).expand(*CASES[kind][0][:-1], 16, -1)
    real = real.movedim(-2, 0)
    for _ in range(40):
        logits = [(scale[-1], other[-1]) for scale, other in zip(judge(real), judge(of(kind, 16)), strict=True)]
        loss = sum(((1 - a).relu().mean() + (1 + b).relu().mean() for a, b in logits), torch.zeros(()))
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss.item() < 0.5 * len(logits), "2 a scale is where nothing is learned"


@pytest.mark.parametrize(
    ("kind", "extent", "options", "says"),
    [
        ("patch2d", 64, {}, "needs images"),
        ("patch2d", (4, 64), {"layers": 3}, "leave nothing of an image of 4 x 64 pixels"),
        ("multi-period", (28, 28), {}, "needs windows"),
        ("multi-period", 10, {}, "longer than the signal of 10"),
        ("multi-scale-stft", (28, 28), {}, "needs windows"),
        ("multi-scale-stft", 100, {}, "every window of the discriminator is longer"),
    ],
)
def test_signals_that_it_cannot_take(kind: str, extent: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(VqtoolError, match=says):
        catalog().make("discriminator", kind, options, 1, extent)
