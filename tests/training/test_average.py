"""The moving average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vqtool.training.stage import Average


def test_the_decay_warms_up_so_that_the_start_is_soon_forgotten() -> None:
    """After n steps the decay is min(decay, (1 + n) / (10 + n)): an average of zeros and then ones, by hand."""
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    average = Average({"p": parameter}, 0.5)
    with torch.no_grad():
        parameter.fill_(1.0)
    expected = 0.0
    for n in range(12):
        decay = min(0.5, (1 + n) / (10 + n))  # 0.1 at the first step, 0.5 from the ninth on
        expected = decay * expected + (1 - decay)
        average.update()
        assert average.values["p"].item() == pytest.approx(expected, rel=1e-12)
    assert average.steps == 12


def test_the_first_step_keeps_a_tenth_of_the_start() -> None:
    parameter = nn.Parameter(torch.ones(1))
    average = Average({"p": parameter}, 0.999)
    with torch.no_grad():
        parameter.zero_()
    average.update()
    assert average.values["p"].item() == pytest.approx(0.1)


def test_inside_the_parameters_hold_their_average_and_afterwards_themselves() -> None:
    parameter = nn.Parameter(torch.ones(2))
    average = Average({"p": parameter}, 0.999)
    with torch.no_grad():
        parameter.zero_()
    average.update()
    with average.applied():
        assert parameter.tolist() == pytest.approx([0.1, 0.1])
    assert parameter.tolist() == [0.0, 0.0]


def test_a_decay_of_zero_switches_it_off() -> None:
    parameter = nn.Parameter(torch.ones(1))
    average = Average({"p": parameter}, 0.0)
    average.update()
    assert (average.values, average.steps) == ({}, 0)
    with average.applied():
        assert parameter.item() == 1.0
