"""`rates`: parts that learn at a share of the learning rate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.test_resume import session
from tests.training.tiny import write_recipe
from vqtool.errors import VqtoolError
from vqtool.model import checkpoint


def trained(folder: Path, name: str, *options: str) -> dict[str, torch.Tensor]:
    """The parts after three steps."""
    made = session(write_recipe(folder), folder / name, ["stage.tokenizer.steps=3", *options])
    assert made.train() == 0
    return checkpoint.load(folder / name / "last.safetensors").tensors


def moved(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], role: str) -> float:
    names = [name for name in one if name.startswith(f"parts.{role}.")]
    return float(torch.cat([(one[name].float() - other[name].float()).flatten().abs() for name in names]).mean())


def test_a_part_moves_by_its_share(tmp_path: Path) -> None:
    start = trained(tmp_path, "start", "stage.tokenizer.steps=1", "train.lr=1e-12")
    whole = trained(tmp_path, "whole")
    still = trained(tmp_path, "still", "train.rates={ encoder = 0.0 }")
    slow = trained(tmp_path, "slow", "train.rates={ encoder = 0.1 }")
    assert moved(still, start, "encoder") < 1e-8
    assert moved(still, start, "decoder") > 1e-4
    ratio = moved(slow, start, "encoder") / moved(whole, start, "encoder")
    assert 0.05 < ratio < 0.2
    assert 0.8 < moved(slow, start, "decoder") / moved(whole, start, "decoder") < 1.25


def test_at_rate_0_codes_stay_that_would_follow_their_average(tmp_path: Path) -> None:
    start = trained(tmp_path, "start", "stage.tokenizer.steps=1", "train.lr=1e-12", "train.rates={ quantizer = 0.0 }")
    still = trained(tmp_path, "still", "train.rates={ quantizer = 0.0 }")
    assert moved(still, start, "quantizer") == 0
    assert moved(trained(tmp_path, "whole"), start, "quantizer") > 1e-4
    assert moved(still, start, "encoder") > 1e-4


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="`contex`") as raised:
        trained(tmp_path, "run", "train.rates={ contex = 0.1 }")
    assert "`encoder`" in str(raised.value.hint)
