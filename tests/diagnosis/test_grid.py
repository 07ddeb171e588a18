"""Fixed grids: how each feature is used, why codes are not, and a grid that fits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.diagnosis.reports import findings, pasted, report, text
from vqtool.diagnosis.grid import feature_use, spread
from vqtool.diagnosis.report import Report
from vqtool.quantizers import FSQ

RNG = np.random.default_rng(0)


def counted(steps: np.ndarray, levels: tuple[int, ...]) -> np.ndarray:
    """Counts [prod(levels)] of tokens at `steps` [N, F]."""
    bases = np.cumprod([1, *levels[:-1]])
    return np.bincount((steps * bases).sum(1), minlength=int(np.prod(levels)))


def made(steps: np.ndarray, levels: tuple[int, ...], lr: float = 3e-3) -> Report:
    """The report of an FSQ whose tokens are at `steps` [N, F]."""
    recipe = text(f'kind = "fsq"\nlevels = {list(levels)}', more=f"[train]\nlr = {lr}\n")
    return report([counted(steps, levels)], recipe=recipe, terms=[], fixed=True, movable=False)


def test_the_use_of_a_feature_is_that_of_its_codes() -> None:
    levels = (3, 4, 2)
    steps = np.stack([RNG.integers(0, n, 500) for n in levels], 1)
    steps[:, 1] = np.minimum(steps[:, 1], 1)
    for feature, shares in enumerate(feature_use(counted(steps, levels), levels)):
        np.testing.assert_allclose(shares, np.bincount(steps[:, feature], minlength=levels[feature]) / 500)
    fsq = FSQ(3, levels=levels)
    assert (fsq.bases.numpy() == np.cumprod([1, 3, 4])).all(), "the order of FSQ's own codes"


def test_the_spread_of_steps_is_0_for_one_step_1_for_even_use_and_more_at_both_ends() -> None:
    assert spread(np.array([0, 1.0, 0, 0, 0])) == 0
    assert spread(np.full(5, 0.2)) == pytest.approx(1)
    assert spread(np.array([0.5, 0, 0, 0, 0.5])) == pytest.approx(2 / np.sqrt(2))


@pytest.mark.parametrize(
    ("steps", "words", "fix"),
    [
        (np.full((4000, 2), 4), "No feature ever leaves its step", "norm.kind=revin"),
        (7 * RNG.integers(0, 2, (4000, 1)).repeat(2, 1), "ends of their bounded range", "stage.tokenizer.lr=0.0009"),
        (RNG.integers(3, 6, (4000, 1)).repeat(2, 1), "do not fill their bounded range yet", "stage.tokenizer.lr=0.01"),
        (RNG.integers(0, 8, (4000, 1)).repeat(2, 1), "Its features move together", "quantizer.levels=[8]"),
    ],
)
def test_each_way_not_to_use_a_grid_has_its_cause_and_fix(steps: np.ndarray, words: str, fix: str) -> None:
    sick = made(steps, (8, 8))
    (one,) = findings(sick).values()
    assert one.id in ("collapse", "dead-codes")
    assert words in one.cause
    assert fix in one.fix[0]
    pasted(sick, one)
    assert not any(word in " ".join(one.fix) for word in ("improve", "start", "revive_below"))


def test_a_grid_that_is_used_is_well() -> None:
    assert findings(made(RNG.integers(0, 8, (8000, 2)), (8, 8))) == {}


def test_bits_that_repeat_others_are_left_out() -> None:
    bits = RNG.integers(0, 2, (4000, 2)).repeat(4, 1)
    recipe = text('kind = "lfq"\nbits = 8', losses="mse = 1.0, diversity = 3.0")
    sick = report([counted(bits, (2,) * 8)], recipe=recipe, terms=["diversity"], fixed=True)
    (one,) = findings(sick).values()
    assert one.fix == ("-s quantizer.bits=2",)
    assert "not independent" in one.cause


def test_a_grid_inside_of_another_quantizer_is_named_by_its_key() -> None:
    recipe = text('kind = "grouped"\ngroups = 1\nof = { kind = "fsq", levels = [8, 8] }')
    sick = report([counted(RNG.integers(0, 8, (4000, 1)).repeat(2, 1), (8, 8))], recipe=recipe, terms=[], fixed=True)
    assert findings(sick)["dead-codes"].fix == ("-s 'quantizer.of.levels=[8]'",)
