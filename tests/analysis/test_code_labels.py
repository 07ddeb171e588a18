"""Codes held against labels: counts, what may be claimed, and that chance and single groups claim nothing."""

from __future__ import annotations

import numpy as np
import pytest

from vqtool.analysis.code_labels import (
    LEAST_GROUPS,
    CodeLabels,
    as_json,
    by_group,
    chosen,
    held_against,
    interval,
    order,
)

RNG = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(20), 50)
LABELS = RNG.choice(4, p=[0.7, 0.05, 0.1, 0.15], size=1000)


def held(codes: np.ndarray, size: int, groups: np.ndarray = GROUPS, **known: np.ndarray) -> CodeLabels:
    return held_against("group0", codes, size, LABELS, 4, groups, **known)


def test_counts_are_counts_and_no_code_is_none() -> None:
    codes = RNG.integers(-1, 6, size=1000)
    each = by_group(codes, 6, LABELS, 4, GROUPS)
    assert each.sum() == (codes >= 0).sum()
    assert each[3, 2, 1] == ((codes == 2) & (LABELS == 1) & (GROUPS == 3)).sum()
    book = held(codes, 6)
    assert book.counts[4, 3] == ((codes == 4) & (LABELS == 3)).sum()


def test_a_code_that_fires_on_one_label_everywhere_is_claimed() -> None:
    codes = np.where((LABELS == 1) & (RNG.random(1000) < 0.9), 1, 0)
    book = held(codes, 3)
    assert book.label.tolist()[1:] == [1, -1]
    assert book.claimed.tolist()[1:] == [True, False]
    assert book.precision[1] == 1
    assert book.groups[1] == len(np.unique(GROUPS[codes == 1]))
    assert np.isnan(book.precision[2])


def test_one_group_s_code_is_not_claimed_however_pure() -> None:
    few = GROUPS < LEAST_GROUPS - 1
    codes = np.where((LABELS == 1) & few, 1, 0)
    book = held(codes, 2)
    assert book.precision[1] == 1
    assert not book.claimed[1]
    assert np.isnan(book.low[1])  # no interval over so few
    codes = np.where((LABELS == 1) & (GROUPS < 10), 1, 0)
    assert held(codes, 2).claimed[1]


def test_groups_in_which_a_code_fires_on_something_else_do_not_count() -> None:
    groups = np.concatenate([np.repeat(np.arange(4), 200), np.arange(4, 9), np.repeat(np.arange(9), 300)])
    codes = np.repeat([1, 0], [805, 2700])
    labels = np.repeat([1, 0], [800, 2705])
    book = held_against("group0", codes, 2, labels, 2, groups)
    assert book.low[1] > 0.9
    assert book.groups[1] == 4
    assert not book.claimed[1]


@pytest.mark.parametrize("seed", range(5))
def test_codes_drawn_by_chance_are_not_claimed_for_rare_labels(seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 20, size=1000)  # some 50 tokens a code
    known = by_group(np.random.default_rng(seed + 50).integers(0, 20, size=1000), 20, LABELS, 4, GROUPS).sum(0)
    book = held(codes, 20, known=known)
    assert not (book.claimed & (book.label > 0)).any()


def test_the_label_is_chosen_on_other_tokens_where_they_have_the_code() -> None:
    counts = np.array([[5, 5], [1, 9], [0, 0], [3, 0]])
    known = np.array([[9, 1], [9, 1], [9, 1], [0, 0]])
    assert chosen(counts, known).tolist() == [0, 0, -1, 0]
    assert chosen(counts, None).tolist() == [0, 1, -1, 0]


def test_a_label_is_chosen_by_lift_not_by_count() -> None:
    assert chosen(np.array([[60, 40], [900, 10]]), None).tolist() == [1, 0]


def test_the_interval_is_over_groups_and_not_over_tokens() -> None:
    apart = np.array([[[100], [0]] * 10], dtype=np.int64).reshape(20, 1)  # half of the groups always, half never
    total = np.full((20, 1), 100)
    low, high = interval(apart, total, 0)
    assert 0.2 < low[0] < 0.35  # over 2000 tokens it would be 0.48 to 0.52
    assert 0.65 < high[0] < 0.8
    same = interval(np.full((20, 1), 50), total, 0)
    assert same[0][0] == same[1][0] == 0.5
    assert all(np.isnan(side).all() for side in interval(np.zeros((20, 2), int), np.zeros((20, 2), int), 0))


def test_examples_are_of_different_groups_and_whatever_their_label() -> None:
    codes = np.where(np.arange(1000) % 10 == 3, 1, 0)
    book = held(codes, 2)
    assert len(book.examples[1]) == 3
    assert len(set(GROUPS[list(book.examples[1])])) == 3
    assert (codes[list(book.examples[1])] == 1).all()
    assert book.examples[1][0] == 3  # its first token, not the first with the right label


def test_lift_and_json_say_the_same() -> None:
    codes = np.where(LABELS == 1, 1, 0)
    book = held(codes, 3)
    assert book.lift()[1, 1] == pytest.approx(1 / (LABELS == 1).mean())
    result = as_json(book, ("noise", "P", "S", "coda"))
    assert (result["used"], result["size"]) == (2, 3)
    row = next(row for row in result["codes"] if row["code"] == 1)
    assert row["label"] == "P"
    assert row["counts"] == {"noise": 0, "P": int((LABELS == 1).sum()), "S": 0, "coda": 0}
    assert row["lift"] == pytest.approx(book.lift()[1, 1])
    assert [row["code"] for row in result["codes"]] == order(book).tolist()
