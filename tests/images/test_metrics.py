"""The metrics of pictures: known values, and where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from vqtool.api import DataSpec, Field, UnfitError
from vqtool_images.metrics.frechet import Frechet, frechet
from vqtool_images.metrics.psnr import Psnr
from vqtool_images.metrics.ssim import Ssim

LABEL = Field((), "label", names=("dark", "bright"))


def spec(*shape: int, **metadata: list[float]) -> DataSpec:
    return DataSpec({"x": Field(shape, "signal"), "label": LABEL}, metadata=metadata)


@pytest.mark.parametrize("cls", [Psnr, Ssim, Frechet])
def test_windows_do_not_fit(cls: type) -> None:
    with pytest.raises(UnfitError, match="needs images"):
        cls(spec(1, 64))


def test_psnr_of_known_errors() -> None:
    metric = Psnr(spec(1, 4, 4))
    x = torch.full((2, 1, 4, 4), 0.5)
    metric.update(x=x, x_hat=x + torch.tensor([0.1, 0.01])[:, None, None, None])
    figures = metric.compute()
    assert figures["psnr.db"] == pytest.approx((20 + 40) / 2, abs=1e-4)
    assert figures["psnr.pooled_db"] == pytest.approx(-10 * math.log10((0.01 + 0.0001) / 2), abs=1e-4)


def test_psnr_of_equal_pictures_is_finite_and_estimates_are_limited_to_the_range() -> None:
    metric = Psnr(spec(1, 4, 4))
    metric.update(x=torch.ones(1, 1, 4, 4), x_hat=torch.full((1, 1, 4, 4), 3.0))
    assert metric.compute()["psnr.db"] == pytest.approx(120)


def test_the_levels_of_the_data_give_the_peak() -> None:
    one, two = Psnr(spec(1, 4, 4)), Psnr(spec(1, 4, 4, levels=[-1.0, 1.0]))
    x, y = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    one.update(x=x, x_hat=y)
    two.update(x=2 * x - 1, x_hat=2 * y - 1)
    assert one.compute()["psnr.db"] == pytest.approx(two.compute()["psnr.db"], abs=1e-4)


def test_ssim_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((2, 1, 24, 20))
    y = (x + 0.2 * rng.normal(size=x.shape)).clip(0, 1)
    metric = Ssim(spec(1, 24, 20))
    metric.update(x=torch.from_numpy(x), x_hat=torch.from_numpy(y))

    def smooth(v: np.ndarray) -> np.ndarray:
        return gaussian_filter(v, (0, 0, 1.5, 1.5), truncate=5 / 1.5)[..., 5:-5, 5:-5]

    a, b = smooth(x), smooth(y)
    above = (2 * a * b + 1e-4) * (2 * (smooth(x * y) - a * b) + 9e-4)
    below = (a**2 + b**2 + 1e-4) * (smooth(x * x) - a**2 + smooth(y * y) - b**2 + 9e-4)
    assert metric.compute()["ssim"] == pytest.approx((above / below).mean(), abs=1e-9)


def test_ssim_of_equal_pictures_is_one_also_of_tiny_ones() -> None:
    metric = Ssim(spec(3, 6, 4))
    x = torch.rand(5, 3, 6, 4)
    metric.update(x=x, x_hat=x)
    assert metric.compute()["ssim"] == pytest.approx(1)


def test_the_distance_of_known_gaussians() -> None:
    a = torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, a + 2) == pytest.approx(12, abs=1e-9)
    assert frechet(a, 3 * (a - a.mean(0)) + a.mean(0)) == pytest.approx(4 * float(torch.cov(a.T, correction=0).trace()))


def bars(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 2
    x = 0.2 * torch.rand(count, 1, 8, 8, generator=generator)
    x[label == 1, :, 2:6] += 0.7
    return x, label


def test_the_classifier_of_the_data_tells_worse_estimates_from_better_ones() -> None:
    x, label = bars(400, 0)
    held, known = bars(100, 1)
    noise = torch.randn(held.shape, generator=torch.Generator().manual_seed(2))
    distances, before = [], torch.random.get_rng_state()
    for scale in (0.0, 0.1, 0.5):
        metric = Frechet(spec(1, 8, 8))
        metric.learn(x=x, label=label)
        with torch.no_grad():
            metric.update(x=held, x_hat=held + scale * noise, label=known)
        figures = metric.compute()
        distances.append(figures["frechet.own"])
        assert figures["frechet.classified"] > 0.95
    assert distances[0] < 1e-6 < distances[1] < distances[2]
    assert torch.equal(before, torch.random.get_rng_state())  # training the classifier leaves the generator alone


def test_nothing_is_said_where_nothing_was_learned() -> None:
    x, label = bars(10, 0)
    metric = Frechet(spec(1, 8, 8))
    metric.update(x=x, x_hat=x, label=label)
    assert metric.compute() == {}
