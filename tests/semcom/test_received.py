"""Figures of a channel as metrics: means over rows, whatever the batches."""

from __future__ import annotations

import pytest
import torch

from vqtool.api import DataSpec, Received
from vqtool_semcom.metrics.received import ReceivedFigures

SPEC = DataSpec({})


def test_figures_are_means_over_rows_and_consistency_knows_no_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    hard = torch.randn(6, 2, 3, generator=generator)
    soft = hard + 0.1 * torch.randn(6, 2, 3, generator=generator)
    codes = torch.zeros(6, 2, 1, dtype=torch.long)
    results = []
    for scale, cuts in ((1.0, (6,)), (50.0, (2, 4))):
        metric, begin = ReceivedFigures(SPEC), 0
        for count in cuts:
            part = slice(begin, begin + count)
            one = Received(z=hard[part], hard=scale * hard[part] + scale, codes=codes[part] + 1,
                           soft=scale * soft[part] + scale, figures={"ber": torch.arange(6.0)[part]})  # fmt: skip
            metric.update(received={".3db": one}, codes=codes[part])
            begin += count
        results.append(metric.compute())
    expected = float((soft - hard).square().mean() / hard.var(correction=0))
    for figures in results:
        assert figures == pytest.approx({"ber.3db": 2.5, "token_errors.3db": 1, "consistency.3db": expected}, rel=1e-4)
