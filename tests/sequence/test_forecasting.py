"""Quantiles of sample paths: the share they are named for, however few the paths."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vqtool.errors import VqtoolError
from vqtool.sequence.forecasting import fewest_paths, path_quantiles


def covered(quantiles: Callable[[Tensor], Tensor], drawn: int) -> float:
    """The share of further draws inside the central 80 % interval of `drawn` ones."""
    generator = torch.Generator().manual_seed(0)
    paths = torch.randn(20_000, drawn + 1, generator=generator, dtype=torch.float64)
    low, high = quantiles(paths[:, :drawn])
    return float(((paths[:, drawn] >= low) & (paths[:, drawn] <= high)).double().mean())


@pytest.mark.parametrize("drawn", [9, 20, 100])
def test_intervals_hold_the_share_they_are_named_for(drawn: int) -> None:
    assert covered(lambda paths: path_quantiles(paths, (0.1, 0.9)), drawn) == pytest.approx(0.8, abs=0.01)


def test_the_usual_quantiles_of_few_draws_are_caught() -> None:
    share = covered(lambda paths: torch.quantile(paths, paths.new_tensor([0.1, 0.9]), dim=1), 20)
    assert share == pytest.approx(0.8 * 19 / 21, abs=0.01)  # (S - 1) / (S + 1) of what was asked for


def test_positions_and_ends_by_hand() -> None:
    paths = torch.tensor([[4.0, 1.0, 3.0, 2.0]])  # sorted, the quantiles 0.2, 0.4, 0.6 and 0.8
    levels = [0.2, 0.3, 0.5, 0.8]
    assert path_quantiles(paths, levels)[:, 0].tolist() == pytest.approx([1.0, 1.5, 2.5, 4.0])


@pytest.mark.parametrize(("level", "needed"), [(0.001, 999), (0.99, 99), (0.9, 9), (0.3, 3), (0.5, 1), (1 / 6, 5)])
def test_paths_too_few_for_a_level_are_refused_and_enough_are_not(level: float, needed: int) -> None:
    """The k-th smallest of S is the quantile k / (S + 1): nothing is known of what lies below 1 / (S + 1)."""
    assert fewest_paths([0.5, level]) == needed
    path_quantiles(torch.randn(2, needed, 3), [0.5, level])
    if needed > 1:
        result = rf"^{needed - 1} sample paths give quantiles from .* not {level:g}$"
        with pytest.raises(VqtoolError, match=result) as caught:
            path_quantiles(torch.randn(2, needed - 1, 3), [0.5, level])
        assert caught.value.hint == f"at least --samples {needed}, or other --quantiles"


def test_shapes_and_order() -> None:
    result = path_quantiles(torch.randn(3, 9, 2, 5), [0.1, 0.5, 0.9])
    assert result.shape == (3, 3, 2, 5)
    assert bool((result.diff(dim=0) >= 0).all())
