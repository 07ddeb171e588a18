"""Linear probes: what is in the data is read, what is not is not, and no group stands on both sides of a fold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from vqtool.analysis.probe import LinearProbe, area_under_curve, cross_predicted, f1_scores, group_folds, one_hots

RNG = np.random.default_rng(0)


def test_one_hots_keep_codebooks_separate_and_leave_out_what_has_no_code() -> None:
    dense = one_hots(np.array([[0, 2], [1, -1], [-1, 0]]), (2, 3)).toarray()
    assert dense.tolist() == [[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]


@given(st.integers(2, 5), st.integers(1, 60), st.integers(0, 10**6))
def test_f1_by_counting(classes: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(classes, size=(2, n))
    scores = f1_scores(labels, predicted, classes)
    for one in range(classes):
        hits, wrong = ((labels == one) & (predicted == one)).sum(), ((labels == one) != (predicted == one)).sum()
        expected = 2 * hits / (2 * hits + wrong) if hits + wrong else np.nan
        np.testing.assert_allclose(scores[one], expected)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.integers(0, 10**6))
def test_the_area_is_scikit_learn_s(ones: int, zeros: int, values: int, seed: int) -> None:
    labels = np.repeat([1, 0], [ones, zeros])
    scores = np.random.default_rng(seed).integers(values, size=ones + zeros).astype(float)  # with ties
    assert area_under_curve(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


def test_an_area_needs_both_classes() -> None:
    assert np.isnan(area_under_curve(np.ones(3, dtype=np.int64), np.arange(3.0)))


@given(st.integers(2, 12), st.integers(0, 10**6))
def test_folds_hold_each_row_out_once_and_part_no_group(groups: int, seed: int) -> None:
    member = np.random.default_rng(seed).integers(groups, size=50)
    held = []
    for fitted, out in group_folds(member):
        assert not set(member[fitted]) & set(member[out])
        held += out.tolist()
    many = len(np.unique(member)) > 1
    assert sorted(held) == (list(range(50)) if many else [])


def test_rare_classes_weigh_as_much_as_frequent_ones() -> None:
    labels = np.repeat([0, 1], [950, 50])
    x = (labels + RNG.normal(0, 1.0, 1000))[:, None]
    result = LinearProbe().fit(x, labels).predict(x)
    assert (result[labels == 1] == 1).mean() > 0.6  # an unbalanced fit says 0 nearly always


def test_a_group_s_own_habit_is_not_read_across_groups() -> None:
    groups = np.repeat(np.arange(10), 40)
    habit = RNG.integers(0, 2, size=10)[groups]
    labels = (habit + (RNG.random(400) < 0.1)) % 2  # the group determines the label, and the code the group
    codes = groups[:, None]
    within = LinearProbe().fit(one_hots(codes, (10,)), labels).predict(one_hots(codes, (10,)))
    across = cross_predicted(one_hots(codes, (10,)), labels, groups)
    assert (within == labels).mean() > 0.85
    assert (across == labels).mean() < 0.7
