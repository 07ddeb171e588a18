"""The quantile loss: least at the true quantiles, and half the absolute error at the median."""

from __future__ import annotations

import torch

from vqtool.api import DataSpec, Field
from vqtool.parts.losses.pinball import Pinball

SPEC = DataSpec({"x": Field((1, 4), "signal")})


def test_the_median_s_loss_is_half_the_absolute_error():
    quantiles, target = torch.randn(3, 1, 2, 5), torch.randn(3, 2, 5)
    loss = Pinball(SPEC)(quantiles=quantiles, levels=torch.tensor([0.5]), target=target)
    torch.testing.assert_close(loss, 0.5 * (quantiles[:, 0] - target).abs().mean())


def test_it_is_least_at_the_true_quantiles():
    torch.manual_seed(0)
    target, levels = torch.randn(4001, 1, 1), torch.tensor([0.1, 0.5, 0.8])
    true = target.flatten().quantile(levels)

    def loss(shift: torch.Tensor) -> float:
        result = (true + shift)[None, :, None, None].expand(len(target), 3, 1, 1)
        return float(Pinball(SPEC)(quantiles=result, levels=levels, target=target))

    best = loss(torch.zeros(3))
    for level in range(3):
        for off in (-0.2, 0.2):
            assert loss(off * torch.nn.functional.one_hot(torch.tensor(level), 3)) > best
